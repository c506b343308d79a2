use std::fmt;

use super::InvalidValue;

macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Upper bound on the length in characters.
            pub const MAX_CHARS: usize = $max;

            /// Validates a text.
            ///
            /// # Errors
            ///
            /// Fails with [`InvalidValue`] if the text is empty, has more than [`Self::MAX_CHARS`]
            /// characters, or contains U+0000.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidValue> {
                bounded(text.into(), Self::MAX_CHARS).map(Self)
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

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

bounded_text! {
    /// Id of a user, in the caller's own user management.
    UserId, 255
}
bounded_text! {
    /// Name of a message's author, if several have the same role.
    AuthorName, 255
}
bounded_text! {
    /// Department or tenant of a user.
    DeptId, 255
}
bounded_text! {
    /// Title of a conversation.
    Title, 255
}
bounded_text! {
    /// Idempotency key of a save or a truncation.
    RequestId, 128
}
bounded_text! {
    /// Key of an item within its namespace.
    ItemKey, 512
}
impl Title {
    const MAX_DERIVED_CHARS: usize = 80;

    /// Derives a title from the first user message: its whole words on one line, up to 80
    /// characters. `None` if it has no words.
    pub fn from_content(content: &str) -> Option<Self> {
        let mut title = String::new();
        let mut chars = 0;
        let words = content
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty());
        for word in words {
            let space = usize::from(chars > 0);
            // Counts only up to the limit, since a word can be very long.
            let length = word.chars().take(Self::MAX_DERIVED_CHARS + 1).count();
            if chars + space + length > Self::MAX_DERIVED_CHARS {
                if chars == 0 {
                    title.extend(word.chars().take(Self::MAX_DERIVED_CHARS));
                }
                break;
            }
            if space > 0 {
                title.push(' ');
            }
            title.push_str(word);
            chars += space + length;
        }
        (!title.is_empty()).then_some(Self(title))
    }
}

pub(super) fn bounded(text: String, max: usize) -> Result<String, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is required"));
    }
    if text.len() > max && text.chars().count() > max {
        return Err(InvalidValue::new(format!(
            "must have at most {max} characters"
        )));
    }
    reject_nul(&text)?;
    Ok(text)
}

/// Rejects U+0000, the one character that PostgreSQL cannot store.
pub(super) fn reject_nul(text: &str) -> Result<(), InvalidValue> {
    if text.contains('\0') {
        return Err(InvalidValue::new("must not contain U+0000"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(content: &str) -> String {
        Title::from_content(content).map_or_else(String::new, Title::into_string)
    }

    #[test]
    fn derives_titles_of_whole_words_on_one_line() {
        assert_eq!(
            derived("What is\nour\tvacation  policy?"),
            "What is our vacation policy?"
        );
        assert_eq!(derived(" \n "), "");
        let long = "word ".repeat(40);
        assert_eq!(derived(&long), "word ".repeat(16).trim_end());
        assert_eq!(derived(&"x".repeat(500)), "x".repeat(80));
        assert_eq!(derived(&"é".repeat(500)).chars().count(), 80);
    }

    #[test]
    fn limits_apply_to_characters() {
        assert!(UserId::parse("é".repeat(255)).is_ok());
        assert!(UserId::parse("é".repeat(256)).is_err());
        assert!(UserId::parse("").is_err());
        assert!(UserId::parse("a\0b").is_err());
        assert_eq!(
            format!("{:?}", UserId::parse("secret").unwrap()),
            "UserId(..)"
        );
    }
}
