//! Counts the tokens that a text takes in a model's input.
//!
//! The time is linear in the length of the text, whatever the text is. Runs of one punctuation
//! character take the longest, up to 0.8 µs per byte, English text 0.02 µs per byte.

use std::sync::atomic::{AtomicBool, Ordering};

use bpe_openai::Tokenizer;

static O200K_IS_LOADED: AtomicBool = AtomicBool::new(false);
static CL100K_IS_LOADED: AtomicBool = AtomicBool::new(false);

/// Encoding that determines where a text is divided into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenEncoding {
    /// Encoding of the models since GPT-4o. Its tables take about 35 MiB of memory, and as much
    /// of the page cache.
    #[default]
    O200kBase,
    /// Encoding of GPT-4 and GPT-3.5. Its tables take about 17 MiB of memory, and as much of the
    /// page cache.
    Cl100kBase,
    /// No encoding: one token per four bytes, an estimate that needs no tables.
    None,
}

impl TokenEncoding {
    /// Every encoding.
    pub const ALL: [Self; 3] = [Self::O200kBase, Self::Cl100kBase, Self::None];

    /// Name of the encoding in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::O200kBase => "o200k_base",
            Self::Cl100kBase => "cl100k_base",
            Self::None => "none",
        }
    }

    /// Returns the encoding with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|encoding| encoding.as_str() == name)
    }

    /// Counts the tokens of `text`. Texts of special tokens, such as `<|endoftext|>`, are counted
    /// as plain text.
    ///
    /// The first call loads the tables of the encoding, which takes about 0.1 seconds. They remain
    /// in memory until the process exits. A text of one megabyte takes 20 ms to 800 ms: an
    /// asynchronous caller should count long texts on a thread that may block.
    pub fn count(self, text: &str) -> u32 {
        let tokens = match self.tokenizer() {
            _ if text.is_empty() => 0,
            Some(tokenizer) => tokenizer.count(text),
            None => text.len().div_ceil(4),
        };
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Whether the tables are loaded, so that [`Self::count`] does not load them.
    pub fn is_loaded(self) -> bool {
        match self {
            Self::O200kBase => O200K_IS_LOADED.load(Ordering::Relaxed),
            Self::Cl100kBase => CL100K_IS_LOADED.load(Ordering::Relaxed),
            Self::None => true,
        }
    }

    fn tokenizer(self) -> Option<&'static Tokenizer> {
        let (tokenizer, is_loaded) = match self {
            Self::O200kBase => (bpe_openai::o200k_base(), &O200K_IS_LOADED),
            Self::Cl100kBase => (bpe_openai::cl100k_base(), &CL100K_IS_LOADED),
            Self::None => return None,
        };
        is_loaded.store(true, Ordering::Relaxed);
        Some(tokenizer)
    }
}

#[cfg(test)]
mod tests;
