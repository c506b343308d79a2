//! Analysis of texts and queries for the search of messages: which terms a text contains, which
//! texts a query matches, how they are ranked, and where the matches are.
//!
//! Both stores search with this package, so that they find the same messages in the same order. It
//! is pure: the same text always has the same terms, whatever the locale of a database.
//!
//! A text is folded, split into words, and each word becomes [terms](Document)
//! at one position: the word itself, its parts, and its stems. Scripts without spaces between words
//! become overlapping pairs of characters. A query is analyzed in the same way.

mod classes;
mod correction;
mod document;
mod folding;
mod highlight;
mod languages;
mod matching;
mod query;
mod words;

pub use self::{
    correction::Correction,
    document::Document,
    highlight::matches_in,
    languages::{Language, Languages},
    matching::{matches, rank},
    query::{Alternative, Element, Form, Operand, Query},
};

/// Number of characters of a text that are searched.
pub const SEARCHED_CHARS: usize = 16_384;

/// Version of the analysis. It increases when texts get other terms, so that documents are analyzed
/// again.
pub const VERSION: u32 = 1;
