use crate::domain::InvalidValue;

/// A field of a request that was refused: where it is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) path: String,
    pub(crate) reason: InvalidValue,
}

impl FieldError {
    pub(crate) fn new(path: impl Into<String>, reason: InvalidValue) -> Self {
        Self {
            path: path.into(),
            reason,
        }
    }

    /// The same field, as seen from the message that `parent` is a field of.
    pub(crate) fn below(self, parent: impl std::fmt::Display) -> Self {
        Self {
            path: format!("{parent}.{}", self.path),
            reason: self.reason,
        }
    }
}

/// Names the field that a value came from, should it be refused.
pub(crate) trait InField<T> {
    fn in_field(self, path: &str) -> Result<T, FieldError>;
}

impl<T> InField<T> for Result<T, InvalidValue> {
    fn in_field(self, path: &str) -> Result<T, FieldError> {
        self.map_err(|reason| FieldError::new(path, reason))
    }
}
