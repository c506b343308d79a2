//! Documents: the terms of a text with their positions.

use crate::{
    languages::Languages,
    words::{Word, words},
};

/// Upper bound on the size of a document in bytes. `PostgreSQL` stores at most 1 MiB.
const MAX_BYTES: usize = 900_000;

/// Upper bound on the positions of a term, as in `PostgreSQL`.
const MAX_POSITIONS: usize = 255;

/// Terms of a text with their positions, in the binary format of `PostgreSQL`'s `tsvector`: the
/// number of the terms, and each term in the order of its bytes, followed by a zero byte and by its
/// positions. Numbers are big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document(Vec<u8>);

impl Document {
    /// Analyzes the first [`SEARCHED_CHARS`](crate::SEARCHED_CHARS) characters of a text. `None` if
    /// they contain no terms.
    pub fn of(text: &str, languages: Languages) -> Option<Self> {
        let mut terms: Vec<(String, u16)> = Vec::with_capacity(text.len() / 4);
        let mut bytes = 0;
        for word in searched_words(text, languages) {
            for term in word.terms(languages) {
                bytes += term.len() + 8;
                terms.push((term, word.position));
            }
            if bytes > MAX_BYTES {
                break;
            }
        }
        terms.sort_unstable();
        (!terms.is_empty()).then(|| Self::encode(&terms, bytes))
    }

    /// Encodes terms in the order of their bytes and positions.
    fn encode(terms: &[(String, u16)], bytes: usize) -> Self {
        let mut encoded = Vec::with_capacity(bytes);
        let places = terms.chunk_by(|(one, _), (other, _)| one == other);
        let count = u32::try_from(places.clone().count()).unwrap_or(u32::MAX);
        encoded.extend(count.to_be_bytes());
        for places in places {
            let places = &places[..places.len().min(MAX_POSITIONS)];
            encoded.extend(places[0].0.as_bytes());
            encoded.push(0);
            let count = u16::try_from(places.len()).unwrap_or(u16::MAX);
            encoded.extend(count.to_be_bytes());
            for (_, position) in places {
                encoded.extend(position.to_be_bytes());
            }
        }
        Self(encoded)
    }

    /// Document of these bytes, which were read from where [`Self::as_bytes`] were stored. Anything
    /// else has fewer terms or none.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The document in the binary format of a `tsvector`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Terms in the order of their bytes.
    pub fn terms(&self) -> impl Iterator<Item = &str> {
        let terms = Terms::of(&self.0).0;
        terms
            .into_iter()
            .filter_map(|term| str::from_utf8(term.text).ok())
    }
}

/// Returns the words of a text that are searched for.
pub(crate) fn searched_words(text: &str, languages: Languages) -> impl Iterator<Item = Word> {
    let words = words(text).into_iter();
    words.filter(move |word| !languages.is_stop_word(&word.text))
}

/// Term of a document.
pub(crate) struct Term<'a> {
    pub(crate) text: &'a [u8],
    positions: &'a [u8],
}

impl Term<'_> {
    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.positions.len() / 2).unwrap_or(u16::MAX)
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = u16> {
        let (pairs, _) = self.positions.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }
}

/// Terms of a document in the order of their bytes.
pub(crate) struct Terms<'a>(Vec<Term<'a>>);

impl<'a> Terms<'a> {
    pub(crate) fn of(document: &'a [u8]) -> Self {
        let mut terms = Vec::new();
        let mut rest = document.get(4..).unwrap_or_default();
        while let Some((term, after)) = split_term(rest) {
            terms.push(term);
            rest = after;
        }
        Self(terms)
    }

    /// Returns the terms that a form matches.
    pub(crate) fn find(&self, term: &str, is_prefix: bool) -> &[Term<'a>] {
        let term = term.as_bytes();
        let first = self.0.partition_point(|stored| stored.text < term);
        let rest = &self.0[first..];
        let count = if is_prefix {
            rest.partition_point(|stored| stored.text.starts_with(term))
        } else {
            usize::from(rest.first().is_some_and(|stored| stored.text == term))
        };
        &rest[..count]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of all positions.
    pub(crate) fn length(&self) -> u32 {
        self.0.iter().map(|term| u32::from(term.count())).sum()
    }
}

fn split_term(bytes: &[u8]) -> Option<(Term<'_>, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, rest) = bytes.split_at(end);
    let (count, rest) = rest.get(1..)?.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*count)) * 2;
    let (positions, rest) = rest.split_at_checked(length)?;
    Some((Term { text, positions }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<String> {
        let document = Document::of(text, Languages::default());
        let document = document.unwrap_or(Document(Vec::new()));
        document.terms().map(str::to_owned).collect()
    }

    #[test]
    fn documents_have_terms_in_the_order_of_their_bytes() {
        assert_eq!(
            terms("The policies, é policy"),
            ["=polici", "e", "policies", "policy"]
        );
        assert_eq!(Document::of("the 👩 …", Languages::default()), None);
        let document = Document::of("b a b", Languages::NONE).unwrap();
        assert_eq!(
            document.as_bytes(),
            b"\0\0\0\x02a\0\0\x01\0\x02b\0\0\x02\0\x01\0\x03"
        );
    }

    #[test]
    fn documents_are_bounded() {
        for text in ["b ".repeat(20_000), "ﷺ".repeat(20_000), "ก".repeat(20_000)] {
            let document = Document::of(&text, Languages::default()).unwrap();
            assert!(document.as_bytes().len() <= MAX_BYTES, "{text}");
            for term in Terms::of(document.as_bytes()).0 {
                assert!(term.text.len() < 2_046);
                assert!(term.count() <= 255);
                assert!(
                    term.positions()
                        .all(|position| (1..16_384).contains(&position))
                );
            }
        }
    }

    #[test]
    fn damaged_documents_have_fewer_terms() {
        let document = Document::of("a b c", Languages::NONE).unwrap();
        for length in 0..document.as_bytes().len() {
            let cut = Document::from_bytes(document.as_bytes()[..length].to_vec());
            assert!(cut.terms().count() < 3);
        }
    }
}
