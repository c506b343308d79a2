//! Languages whose words are reduced to stems.

use std::{collections::HashSet, fmt, sync::LazyLock};

use rust_stemmers::{Algorithm, Stemmer};

/// Language with a stemmer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Language {
    name: &'static str,
    algorithm: u8,
}

const ALGORITHMS: [(&str, Algorithm); 18] = [
    ("arabic", Algorithm::Arabic),
    ("danish", Algorithm::Danish),
    ("dutch", Algorithm::Dutch),
    ("english", Algorithm::English),
    ("finnish", Algorithm::Finnish),
    ("french", Algorithm::French),
    ("german", Algorithm::German),
    ("greek", Algorithm::Greek),
    ("hungarian", Algorithm::Hungarian),
    ("italian", Algorithm::Italian),
    ("norwegian", Algorithm::Norwegian),
    ("portuguese", Algorithm::Portuguese),
    ("romanian", Algorithm::Romanian),
    ("russian", Algorithm::Russian),
    ("spanish", Algorithm::Spanish),
    ("swedish", Algorithm::Swedish),
    ("tamil", Algorithm::Tamil),
    ("turkish", Algorithm::Turkish),
];

/// English words that are neither indexed nor searched, because nearly every text contains them.
const ENGLISH_STOP_WORDS: &str = "\
i me my myself we our ours ourselves you your yours yourself yourselves he him his \
himself she her hers herself it its itself they them their theirs themselves what \
which who whom this that these those am is are was were be been being have has had \
having do does did doing a an the and but if or because as until while of at by for \
with about against between into through during before after above below to from up \
down in out on off over under again further then once here there when where why how \
all any both each few more most other some such no nor not only own same so than too \
very s t can will just don should now";

static STOP_WORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| ENGLISH_STOP_WORDS.split(' ').collect());

/// Longest word that is reduced to a stem, in characters. Longer ones are no words of a language.
const MAX_STEMMED: usize = 40;

impl Language {
    /// Parses a name, such as `english`.
    pub fn from_name(name: &str) -> Option<Self> {
        let index = ALGORITHMS.iter().position(|(known, _)| *known == name)?;
        Some(Self {
            name: ALGORITHMS[index].0,
            algorithm: u8::try_from(index).ok()?,
        })
    }

    /// Name of the language, in English and lower case.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Names of all languages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALGORITHMS.iter().map(|(name, _)| *name)
    }

    fn stemmer(self) -> Stemmer {
        Stemmer::create(ALGORITHMS[usize::from(self.algorithm)].1)
    }
}

/// Languages of the texts, at most [`Languages::MAX`]. Words of other languages are found as they are
/// written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Languages {
    languages: [Option<Language>; Self::MAX],
}

impl Languages {
    /// Upper bound on the number of languages. Each makes documents larger.
    pub const MAX: usize = 4;

    /// Words are not reduced to stems in any language.
    pub const NONE: Self = Self {
        languages: [None; Self::MAX],
    };

    /// Collects languages. Their order and repetitions have no meaning.
    ///
    /// Returns `None` if there are more than [`Self::MAX`].
    pub fn new(languages: impl IntoIterator<Item = Language>) -> Option<Self> {
        let mut sorted: Vec<_> = languages.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut collected = Self::NONE;
        for (place, language) in sorted.iter().enumerate() {
            *collected.languages.get_mut(place)? = Some(*language);
        }
        Some(collected)
    }

    /// Parses names that are separated by commas, or `none`.
    pub fn from_names(names: &str) -> Option<Self> {
        let names = names.trim();
        if names == "none" {
            return Some(Self::NONE);
        }
        let languages: Option<Vec<_>> = names
            .split(',')
            .map(|name| Language::from_name(name.trim()))
            .collect();
        Self::new(languages?)
    }

    fn iter(&self) -> impl Iterator<Item = Language> {
        self.languages.iter().flatten().copied()
    }

    /// Identifies the analysis with these languages, for example `1:english`. Documents with another
    /// identity are analyzed again.
    pub fn analyzer(&self) -> String {
        format!("{}:{self}", crate::VERSION)
    }

    /// Whether a folded word is too frequent to be searched for.
    pub(crate) fn is_stop_word(&self, word: &str) -> bool {
        word.is_ascii()
            && self.iter().any(|language| language.name == "english")
            && STOP_WORDS.contains(word)
    }

    /// Returns the stems of a lower-case word that is not folded.
    pub(crate) fn stems(&self, word: &str) -> impl Iterator<Item = String> {
        let is_word = word.chars().all(char::is_alphabetic)
            && (3..=MAX_STEMMED).contains(&word.chars().count());
        self.iter()
            .filter(move |_| is_word)
            .map(move |language| language.stemmer().stem(word).into_owned())
    }
}

impl Default for Languages {
    fn default() -> Self {
        Self::from_names("english").unwrap_or(Self::NONE)
    }
}

impl fmt::Display for Languages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Language::name).collect();
        if names.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_parsed() {
        let languages = Languages::from_names(" german, english,german").unwrap();
        assert_eq!(languages.to_string(), "english,german");
        assert_eq!(languages.analyzer(), "1:english,german");
        assert_eq!(Languages::from_names("none"), Some(Languages::NONE));
        assert_eq!(Languages::from_names("klingon"), None);
        assert_eq!(
            Languages::from_names("danish,dutch,english,finnish,french"),
            None
        );
    }

    proptest! {
        #[test]
        fn stemmers_accept_every_word(word in "\\PC{3,40}|[a-zäöüßéèçğışıα-ωа-яء-ي]{3,40}") {
            for name in Language::names() {
                let languages = Languages::new(Language::from_name(name)).unwrap();
                prop_assert!(languages.stems(&word.to_lowercase()).count() <= 1);
            }
        }
    }
}
