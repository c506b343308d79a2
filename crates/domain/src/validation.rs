use std::{borrow::Cow, fmt};

/// Reason that a value is invalid, as a phrase that follows the field's name:
/// "must not be negative". It never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidValue {
    reason: Cow<'static, str>,
    exceeded: Option<SizeLimit>,
}

/// Limit on a size that a setting raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeLimit {
    /// Text of a message or a context.
    Content,
    /// The JSON text of a metadata object.
    Metadata,
    /// Data of a binary part.
    Blob,
    /// Message of a request or a file.
    Request,
}

impl InvalidValue {
    /// Creates a reason from its phrase.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason: reason.into(),
            exceeded: None,
        }
    }

    /// Creates the reason of a value that exceeds `limit`, from a phrase to which the advice what
    /// to do is added.
    pub fn exceeds(limit: SizeLimit, reason: impl fmt::Display) -> Self {
        let advice = match limit {
            SizeLimit::Content => "split the text, or raise MAX_CONTENT_BYTES",
            SizeLimit::Metadata => "store less, or raise MAX_METADATA_BYTES",
            SizeLimit::Blob => {
                "store larger data elsewhere and save its URI, or raise MAX_BLOB_BYTES"
            }
            SizeLimit::Request => "split the message, or raise MAX_REQUEST_BYTES",
        };
        Self {
            reason: format!("{reason}: {advice}").into(),
            exceeded: Some(limit),
        }
    }

    /// Limit that the value exceeds, if that is the reason.
    pub fn exceeded(&self) -> Option<SizeLimit> {
        self.exceeded
    }
}

/// Field with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {reason}")]
pub struct FieldError {
    /// Path of the field, relative to the value that is validated, such as
    /// `contexts[0].score`; empty for the value itself.
    pub path: String,
    /// Reason that the field's value is invalid.
    pub reason: InvalidValue,
}

impl FieldError {
    /// Creates the error of the field at `path`.
    pub fn new(path: impl Into<String>, reason: InvalidValue) -> Self {
        Self {
            path: path.into(),
            reason,
        }
    }

    /// Returns the same error with a path relative to the value that has `parent` as
    /// a field.
    #[must_use]
    pub fn below(self, parent: impl fmt::Display) -> Self {
        let Self { path, reason } = self;
        // An index follows its list without a dot.
        let separator = if path.is_empty() || path.starts_with('[') {
            ""
        } else {
            "."
        };
        Self {
            path: format!("{parent}{separator}{path}"),
            reason,
        }
    }
}

/// Attaches the field's name to the error of its value.
pub trait InField<T> {
    /// Converts an invalid value into the error of the field at `path`.
    ///
    /// # Errors
    ///
    /// Fails with [`FieldError`] if the value is invalid.
    fn in_field(self, path: &str) -> Result<T, FieldError>;
}

impl<T> InField<T> for Result<T, InvalidValue> {
    fn in_field(self, path: &str) -> Result<T, FieldError> {
        self.map_err(|reason| FieldError::new(path, reason))
    }
}

/// Validates a number that must be 0 or more.
///
/// # Errors
///
/// Fails with [`InvalidValue`] if `number` is negative.
pub fn non_negative<N: Default + PartialOrd>(number: N) -> Result<N, InvalidValue> {
    if number < N::default() {
        return Err(InvalidValue::new("must not be negative"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_paths_of_fields_and_list_items() {
        let path = |error: FieldError| error.path;
        let score = || FieldError::new("score", InvalidValue::new("must be finite"));
        let item = || score().below("[2]");
        assert_eq!(path(item()), "[2].score");
        assert_eq!(path(item().below("contexts")), "contexts[2].score");
        assert_eq!(path(score().below("conversation")), "conversation.score");
        let whole = FieldError::new("", InvalidValue::new("must be an object"));
        assert_eq!(path(whole.below("[1]").below("messages")), "messages[1]");
    }
}
