//! Correction of typing errors in a query that finds nothing.

use std::{collections::HashMap, ops::Range};

use crate::{
    document::{Document, Terms},
    languages::Languages,
    query::{Form, RawOperand, alternatives, forms},
    words::{STEM_MARK, words},
};

/// Lower bound on the letters of a word that is corrected. One edit turns many shorter words into
/// another.
const MIN_LETTERS: usize = 5;

/// Upper bound on the bytes of the documents that are examined.
const MAX_BYTES: usize = 8 << 20;

/// Search for the words that a query means, in the documents that it has searched.
///
/// Words of five letters or more that occur in none of them are replaced by the most
/// frequent word at one edit: an inserted, deleted or substituted letter, or two transposed ones.
/// Phrases, beginnings of words, excluded words, and words with digits are not corrected: they mean
/// what they say.
#[derive(Debug)]
pub struct Correction {
    query: String,
    words: Vec<Misspelled>,
    bytes: usize,
}

#[derive(Debug)]
struct Misspelled {
    /// Bytes of the query.
    range: Range<usize>,
    letters: Vec<char>,
    forms: Vec<Form>,
    /// Whether a document contains the word.
    occurs: bool,
    /// Words at one edit, and the numbers of documents that contain them.
    similar: HashMap<String, u32>,
}

impl Correction {
    /// Number of documents that are examined at most: the newest ones.
    pub const MAX_DOCUMENTS: u32 = 5_000;

    /// Begins the correction of a query. `None` if it has no word that can be corrected.
    pub fn new(query: &str, languages: Languages) -> Option<Self> {
        let operands = alternatives(query).into_iter().flatten();
        let words: Vec<_> = operands
            .filter(|operand| !operand.is_quoted && !operand.is_negated)
            .filter_map(|operand| Misspelled::new(query, &operand, languages))
            .collect();
        (!words.is_empty()).then(|| Self {
            query: query.to_owned(),
            words,
            bytes: 0,
        })
    }

    /// Examines a document. The newest come first. Returns whether another one is to be examined.
    pub fn examine(&mut self, document: &Document) -> bool {
        self.bytes += document.as_bytes().len();
        if self.bytes > MAX_BYTES {
            return false;
        }
        let terms = Terms::of(document.as_bytes());
        let mut letters = Vec::new();
        for word in self.words.iter_mut().filter(|word| !word.occurs) {
            let mut forms = word.forms.iter();
            word.occurs = forms.any(|form| !terms.find(&form.term, form.is_prefix).is_empty());
        }
        for term in document.terms().filter(|term| !term.starts_with(STEM_MARK)) {
            letters.clear();
            letters.extend(term.chars().take(crate::SEARCHED_CHARS));
            for word in self.words.iter_mut().filter(|word| !word.occurs) {
                if is_one_edit(&word.letters, &letters) && letters.iter().all(|c| c.is_alphabetic())
                {
                    *word.similar.entry(term.to_owned()).or_default() += 1;
                }
            }
        }
        self.words.iter().any(|word| !word.occurs)
    }

    /// Returns the corrected query; `None` if no word is corrected.
    pub fn finish(mut self) -> Option<String> {
        let mut is_corrected = false;
        self.words.sort_by_key(|word| word.range.start);
        for word in self.words.into_iter().rev().filter(|word| !word.occurs) {
            // The most frequent word, and the first in the order of their bytes if there are several.
            let similar = word.similar.into_iter();
            let best = similar.max_by(|(one, count), (other, other_count)| {
                count.cmp(other_count).then_with(|| other.cmp(one))
            });
            if let Some((best, _)) = best {
                self.query.replace_range(word.range, &best);
                is_corrected = true;
            }
        }
        is_corrected.then_some(self.query)
    }
}

impl Misspelled {
    fn new(query: &str, operand: &RawOperand<'_>, languages: Languages) -> Option<Self> {
        if operand.text.ends_with('*') {
            return None;
        }
        let words = words(operand.text);
        let [word] = words.as_slice() else {
            return None;
        };
        let letters: Vec<char> = word.text.chars().collect();
        let is_word = letters.len() >= MIN_LETTERS && letters.iter().all(|c| c.is_alphabetic());
        if !is_word || !word.parts.is_empty() || languages.is_stop_word(&word.text) {
            return None;
        }
        // The operand is a part of the query.
        let start = operand.text.as_ptr().addr() - query.as_ptr().addr();
        Some(Self {
            range: start + word.start..start + word.end,
            letters,
            forms: forms(word, false, languages),
            occurs: false,
            similar: HashMap::new(),
        })
    }
}

/// Returns whether one edit makes a word of the other.
fn is_one_edit(one: &[char], other: &[char]) -> bool {
    if one.len().abs_diff(other.len()) > 1 {
        return false;
    }
    let pairs = one.iter().zip(other);
    let prefix = pairs.take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[prefix..], &other[prefix..]);
    let pairs = one.iter().rev().zip(other.iter().rev());
    let suffix = pairs.take_while(|(a, b)| a == b).count();
    match (&one[..one.len() - suffix], &other[..other.len() - suffix]) {
        ([_], [] | [_]) | ([], [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corrected(query: &str, texts: &[&str]) -> Option<String> {
        let mut correction = Correction::new(query, Languages::default())?;
        for text in texts {
            let document = Document::of(text, Languages::default());
            if !document.is_none_or(|document| correction.examine(&document)) {
                break;
            }
        }
        correction.finish()
    }

    #[test]
    fn one_edit_is_an_insertion_deletion_substitution_or_transposition() {
        let is_edit = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|word| word.chars().collect::<Vec<_>>());
            assert_eq!(is_one_edit(&one, &other), is_one_edit(&other, &one));
            is_one_edit(&one, &other)
        };
        for (one, other) in [
            ("abcde", "abcd"),
            ("abcde", "bcde"),
            ("abcde", "abxde"),
            ("abcde", "abdce"),
            ("abcde", "bacde"),
            ("aabbb", "aabb"),
            ("häuse", "hause"),
        ] {
            assert!(is_edit(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("abcde", "abcde"),
            ("abcde", "abc"),
            ("abcde", "axxde"),
            ("abcde", "adcbe"),
            ("abcde", "bcdea"),
            ("abcde", "ebcda"),
        ] {
            assert!(!is_edit(one, other), "{one} {other}");
        }
    }

    #[test]
    fn words_without_matches_are_replaced() {
        let texts = ["Vacation policies", "vocation", "a vacation", "house 12345"];
        for (query, expected) in [
            ("Vaaction", Some("vacation")),
            ("vication", Some("vacation")),
            ("vacatoin, policies", Some("vacation, policies")),
            (
                "plicies or hose houses x",
                Some("policies or hose houses x"),
            ),
            ("vaction or hausses", Some("vacation or hausses")),
            ("vaction -polcies", Some("vacation -polcies")),
            ("vacation", None),
            ("polici", None),
            ("hous", None),
            ("\"vaction\"", None),
            ("vactio*", None),
            ("-vaction", None),
            ("12346", None),
            ("va-cation", None),
            ("xyzzy", None),
        ] {
            assert_eq!(corrected(query, &texts).as_deref(), expected, "{query}");
        }
        assert_eq!(
            corrected("vication", &texts[1..3]).as_deref(),
            Some("vacation")
        );
    }

    #[test]
    fn documents_are_examined_up_to_a_limit() {
        let mut correction = Correction::new("vaction", Languages::NONE).unwrap();
        let large: Vec<_> = (0..16_000).map(|number| format!("w{number}")).collect();
        let large = Document::of(&large.join(" "), Languages::NONE).unwrap();
        let count = (0..10_000)
            .take_while(|_| correction.examine(&large))
            .count();
        assert!((50..1_000).contains(&count), "{count}");
        assert!(!correction.examine(&Document::of("vacation", Languages::NONE).unwrap()));
        assert_eq!(correction.finish(), None);
    }
}
