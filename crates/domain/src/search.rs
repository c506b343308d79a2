use std::fmt;

use super::{InvalidValue, text::bounded};

/// Search query: words, phrases in quotation marks, excluded words with a leading `-`, and `or`.
#[derive(Clone, PartialEq, Eq)]
pub struct SearchText(String);

impl SearchText {
    /// Upper bound on the length in characters.
    pub const MAX_CHARS: usize = 512;

    /// Upper bound on the number of words, those of phrases included. The cost of a search grows
    /// with it.
    pub const MAX_WORDS: usize = 32;

    /// Validates a query.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the text is empty, has more than [`Self::MAX_CHARS`]
    /// characters or [`Self::MAX_WORDS`] words, or contains U+0000.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = bounded(text.into(), Self::MAX_CHARS)?;
        let max = Self::MAX_WORDS;
        if count_words(&text) > max {
            return Err(InvalidValue::new(format!("must have at most {max} words")));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SearchText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SearchText").finish_non_exhaustive()
    }
}

/// Counts the words of a text. Combining marks, and the joiners of scripts that are written with
/// them, do not separate words.
fn count_words(text: &str) -> usize {
    let is_separator = |c: char| {
        !c.is_alphanumeric()
            && (c.is_ascii()
                || c.is_whitespace()
                || matches!(c, '\u{80}'..='\u{bf}' | '\u{2010}'..='\u{2bff}' | '\u{3000}'..='\u{303f}'))
    };
    let words = text.split(is_separator);
    words
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_words_is_limited() {
        for (text, words) in [
            ("one", 1),
            ("-one or \"two three\"", 4),
            ("a-b_c.d/e@f", 6),
            ("a\u{2014}b…c、d", 4),
            ("हिन्दी भाषा", 2),
            ("e\u{301}te\u{301}", 1),
            ("((( & ! -- 👩‍👩‍👧‍👦", 0),
        ] {
            assert_eq!(count_words(text), words, "{text}");
        }
        assert!(SearchText::parse("w ".repeat(32)).is_ok());
        for separator in [" ", "-", "\u{2014}", ".", "\" \"", " or "] {
            let text = vec!["w"; 33].join(separator);
            assert!(SearchText::parse(text).is_err(), "{separator}");
        }
        assert!(SearchText::parse("é".repeat(513)).is_err());
        assert!(SearchText::parse("").is_err());
    }
}
