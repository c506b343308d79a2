use std::fmt;

use super::{InvalidValue, Limits, SizeLimit, text::reject_nul};

/// Text of a message or of a retrieved document: within the size limit and without U+0000. The
/// Debug output contains only its size.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Content(String);

impl Content {
    /// Validates a text, which may be empty.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the text exceeds [`Limits::content_bytes`] or contains
    /// U+0000.
    pub fn parse(text: String, limits: &Limits) -> Result<Self, InvalidValue> {
        if text.len() > limits.content_bytes {
            let max = limits.content_bytes;
            let reason = format_args!("must have at most {max} bytes");
            return Err(InvalidValue::exceeds(SizeLimit::Content, reason));
        }
        reject_nul(&text)?;
        Ok(Self(text))
    }

    /// Wraps a text that this program stored, without validation: the limit may have
    /// been higher when it was saved.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Converts into the text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}
