use crate::{
    archive::LineError,
    domain::{FieldError, InvalidValue},
};

/// Invalid field of a request, which becomes the status `INVALID_ARGUMENT`. It wraps the
/// domain's error because only a type of this crate can be converted into a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldViolation(FieldError);

impl FieldViolation {
    /// Creates the error of the field at `path`.
    pub(crate) fn new(path: impl Into<String>, reason: InvalidValue) -> Self {
        Self(FieldError::new(path, reason))
    }

    /// Returns the same error as seen from the message that has the field in `parent`.
    pub(crate) fn below(self, parent: &str) -> Self {
        Self(self.0.below(parent))
    }
}

impl From<FieldViolation> for FieldError {
    fn from(violation: FieldViolation) -> Self {
        violation.0
    }
}

impl From<FieldError> for FieldViolation {
    fn from(error: FieldError) -> Self {
        Self(error)
    }
}

impl From<LineError> for FieldViolation {
    fn from(error: LineError) -> Self {
        Self(error.into())
    }
}

/// Adds the path of a field to the error of its value.
pub(crate) trait InField<T> {
    /// Converts the error of a value into that of the field at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the value is invalid.
    fn in_field(self, path: &str) -> Result<T, FieldViolation>;
}

impl<T> InField<T> for Result<T, InvalidValue> {
    fn in_field(self, path: &str) -> Result<T, FieldViolation> {
        self.map_err(|reason| FieldViolation::new(path, reason))
    }
}
