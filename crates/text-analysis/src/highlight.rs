//! Places of a text that match a query.

use std::ops::Range;

use crate::{
    languages::Languages,
    query::{Element, Query},
    words::{Word, words},
};

/// Returns the bytes of a text that match the words and phrases of a query, in order and without
/// overlaps.
pub fn matches_in(text: &str, query: &Query, languages: Languages) -> Vec<Range<usize>> {
    let words = words(text);
    let terms: Vec<_> = words.iter().map(|word| word.terms(languages)).collect();
    let mut ranges = Vec::new();
    let alternatives = query.alternatives.iter();
    for operand in alternatives.flat_map(|alternative| &alternative.required) {
        for start in 0..words.len() {
            let found = operand.elements.iter().map(|element| {
                // The words of a phrase have consecutive positions.
                let place = start + usize::from(element.offset);
                range(element, place, &words, terms.get(place)?)
            });
            if let Some(found) = found.collect::<Option<Vec<_>>>() {
                ranges.extend(found);
            }
        }
    }
    merge(ranges)
}

/// Range of a word if it matches an element.
fn range(
    element: &Element,
    place: usize,
    words: &[Word],
    terms: &[String],
) -> Option<Range<usize>> {
    let matches = |term: &&String| {
        element.forms.iter().any(|form| {
            term.as_str() == form.term || form.is_prefix && term.starts_with(&form.term)
        })
    };
    let term = terms.iter().find(matches)?;
    let word = &words[place];
    // Of a pair whose first character matches, the second one belongs to the next pair.
    let next = words.get(place + 1).filter(|next| next.start < word.end);
    let is_whole = element.forms.iter().any(|form| form.term == *term);
    let end = next
        .filter(|_| !is_whole)
        .map_or(word.end, |next| next.start);
    Some(word.start..end)
}

fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str, query: &str) -> String {
        let languages = Languages::default();
        let query = Query::parse(query, languages);
        let mut marked = text.to_owned();
        for range in matches_in(text, &query, languages).into_iter().rev() {
            marked.insert(range.end, ']');
            marked.insert(range.start, '[');
        }
        marked
    }

    #[test]
    fn marks_matches() {
        for (text, query, expected) in [
            ("Which policies hold?", "POLICY", "Which [policies] hold?"),
            ("Café CAFE", "cafe", "[Café] [CAFE]"),
            (
                "red fish, fish red",
                "\"red fish\"",
                "[red] [fish], fish red",
            ),
            ("ab ABC-1234", "1234 -ab", "ab ABC-[1234]"),
            ("我在北京大学学习", "北京大学", "我在[北京大学]学习"),
            ("大学", "大", "[大]学"),
            ("swimming", "swi*", "[swimming]"),
            ("Straße", "strasse", "[Straße]"),
        ] {
            assert_eq!(marked(text, query), expected, "{query}");
        }
    }
}
