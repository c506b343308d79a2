//! Queries: words that must all occur, phrases in quotes, `or` between alternatives, `-` before what
//! must not occur, and `*` after the beginning of a word. Every text is a valid query.

use crate::{
    classes::{Class, class},
    document::searched_words,
    languages::Languages,
    words::{STEM_MARK, Word},
};

/// Query whose words have been analyzed like those of texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Alternatives, one of which a document matches.
    pub alternatives: Vec<Alternative>,
}

/// Alternative of a query. At least one of its lists is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alternative {
    /// Operands that must all occur.
    pub required: Vec<Operand>,
    /// Operands that must not occur.
    pub excluded: Vec<Operand>,
}

/// Word or phrase, which has at least one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Words of the phrase in their order.
    pub elements: Vec<Element>,
}

/// Word of a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Distance from the first word of the phrase.
    pub offset: u16,
    /// Forms, one of which occurs in a matching document. There is at least one.
    pub forms: Vec<Form>,
}

/// Form of a word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// Term of a document, or its beginning. It consists of letters, digits and marks, and may begin
    /// with `=`.
    pub term: String,
    /// Whether terms that begin with `term` match, too.
    pub is_prefix: bool,
}

impl Query {
    /// Analyzes a query. The result has no alternatives if the query has only stop words and
    /// separators; it matches nothing.
    pub fn parse(text: &str, languages: Languages) -> Self {
        let mut query = Self::default();
        for operands in alternatives(text) {
            let mut alternative = Alternative::default();
            for RawOperand {
                text,
                is_quoted,
                is_negated,
            } in operands
            {
                let Some(operand) = Operand::analyze(text, is_quoted, languages) else {
                    continue;
                };
                if is_negated {
                    alternative.excluded.push(operand);
                } else {
                    alternative.required.push(operand);
                }
            }
            if alternative != Alternative::default() {
                query.alternatives.push(alternative);
            }
        }
        query
    }

    /// Beginning of a term that every matching document contains, of the longest known. `None` if
    /// there may be matches with nothing in common.
    pub fn common_term(&self) -> Option<&str> {
        let [only] = self.alternatives.as_slice() else {
            return None;
        };
        let elements = only.required.iter().flat_map(|operand| &operand.elements);
        elements
            .map(Element::common_prefix)
            .max_by_key(|term| term.len())
    }

    /// Forms of the words that must occur, which determine the rank, in the order of their bytes.
    pub fn ranked_forms(&self) -> Vec<Form> {
        let alternatives = self.alternatives.iter();
        let operands = alternatives.flat_map(|alternative| &alternative.required);
        let elements = operands.flat_map(|operand| &operand.elements);
        let mut forms: Vec<Form> = elements.flat_map(|element| element.forms.clone()).collect();
        // The prefix, which contains the word, comes first.
        forms.sort_by(|a, b| (&a.term, !a.is_prefix).cmp(&(&b.term, !b.is_prefix)));
        forms.dedup_by(|second, first| second.term == first.term);
        forms
    }
}

impl Element {
    /// Longest prefix of all forms, without their marks.
    fn common_prefix(&self) -> &str {
        let mut terms = self
            .forms
            .iter()
            .map(|form| form.term.trim_start_matches(STEM_MARK));
        let first = terms.next().unwrap_or_default();
        terms.fold(first, |prefix, term| {
            let differs = |((at, a), b): ((usize, char), char)| (a != b).then_some(at);
            let end = prefix.char_indices().zip(term.chars()).find_map(differs);
            &prefix[..end.unwrap_or(prefix.len().min(term.len()))]
        })
    }
}

impl Operand {
    fn analyze(text: &str, is_quoted: bool, languages: Languages) -> Option<Self> {
        let beginning = text.strip_suffix('*').filter(|_| !is_quoted);
        let is_prefix = beginning.is_some_and(|text| {
            text.chars()
                .next_back()
                .is_some_and(|c| class(c) != Class::Separator)
        });
        let words = match beginning {
            Some(beginning) if is_prefix => crate::words::words(beginning),
            _ => searched_words(text, languages).collect(),
        };
        let first = words.first()?.position;
        let mut elements = Vec::with_capacity(words.len());
        for (index, word) in words.iter().enumerate() {
            let is_last = index + 1 == words.len();
            // The pair before contains this character.
            let before = index.checked_sub(1).and_then(|before| words.get(before));
            if word.is_single && before.is_some_and(|before| before.end >= word.end) {
                continue;
            }
            elements.push(Element {
                offset: word.position - first,
                forms: forms(word, is_prefix && is_last, languages),
            });
        }
        Some(Self { elements })
    }
}

pub(crate) fn forms(word: &Word, is_prefix: bool, languages: Languages) -> Vec<Form> {
    let is_prefix = is_prefix || word.is_single;
    let mut forms = vec![Form {
        term: word.text.clone(),
        is_prefix,
    }];
    if !is_prefix {
        let exact = |term| Form {
            term,
            is_prefix: false,
        };
        for stem in word.stems(languages) {
            forms.push(exact(format!("{STEM_MARK}{stem}")));
            // A word that is its own stem is not marked.
            forms.push(exact(stem));
        }
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Word or phrase as it is written.
pub(crate) struct RawOperand<'a> {
    pub(crate) text: &'a str,
    pub(crate) is_quoted: bool,
    pub(crate) is_negated: bool,
}

/// Splits a query at `or` into alternatives, and each into its operands.
pub(crate) fn alternatives(query: &str) -> Vec<Vec<RawOperand<'_>>> {
    let mut group = Vec::new();
    let mut groups = Vec::new();
    let mut is_negated = false;
    let mut rest = query.trim_start_matches(is_separator);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('-') {
            is_negated = !is_negated;
            rest = after.trim_start_matches(is_separator);
            continue;
        }
        let is_quoted = rest.starts_with('"');
        let (text, after) = split_operand(rest);
        rest = after.trim_start_matches(is_separator);
        // An `or` without an operand on each side is a word.
        let is_between = !is_negated && !group.is_empty() && !rest.is_empty();
        if is_between && !is_quoted && text.eq_ignore_ascii_case("or") {
            groups.push(std::mem::take(&mut group));
        } else {
            group.push(RawOperand {
                text,
                is_quoted,
                is_negated,
            });
            is_negated = false;
        }
    }
    groups.push(group);
    groups
}

/// Splits the first phrase or word from a text.
fn split_operand(text: &str) -> (&str, &str) {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"').unwrap_or((quoted, ""));
    }
    let end = text
        .find(|c| c == '"' || is_separator(c))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || "!&|()".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(operand: &Operand) -> String {
        let elements = operand.elements.iter().map(|element| {
            let forms = element.forms.iter();
            let forms: Vec<_> = forms
                .map(|form| format!("{}{}", form.term, if form.is_prefix { "*" } else { "" }))
                .collect();
            format!("{}@{}", forms.join("|"), element.offset)
        });
        elements.collect::<Vec<_>>().join(" ")
    }

    fn parsed(query: &str, languages: &str) -> String {
        let query = Query::parse(query, Languages::from_names(languages).unwrap());
        let alternatives = query.alternatives.iter().map(|alternative| {
            let required = alternative.required.iter().map(shown);
            let excluded = alternative.excluded.iter().map(shown);
            let all = required.chain(excluded.map(|operand| format!("-{operand}")));
            all.collect::<Vec<_>>().join(", ")
        });
        alternatives.collect::<Vec<_>>().join(" / ")
    }

    #[test]
    fn parses_queries() {
        for (query, expected) in [
            ("red fish", "red@0, fish@0"),
            (r#""red fish" x"#, "red@0 fish@1, x@0"),
            ("red OR fish x", "red@0 / fish@0, x@0"),
            ("red -fish -x", "red@0, -fish@0, -x@0"),
            ("-fish", "-fish@0"),
            ("--fish", "fish@0"),
            (r#"red"fish"-"x y"#, "red@0, fish@0, -x@0 y@1"),
            ("red or", "red@0, or@0"),
            ("or red", "or@0, red@0"),
            ("ABC-1234", "abc@0 1234@1"),
            ("fi* a*b \"fi*\"", "fi*@0, a@0 b@1, fi@0"),
            ("北京大学", "北京@0 京大@1 大学@2"),
            ("学", "学*@0"),
            ("a学", "a@0 学*@1"),
            (r#"" ((( & ! \ <-> - ""#, ""),
        ] {
            assert_eq!(parsed(query, "none"), expected, "{query}");
        }
        for (query, expected) in [
            ("swims", "=swim|swim|swims@0"),
            ("swim", "=swim|swim@0"),
            ("\"blue and red\"", "=blue|blue@0 =red|red@2"),
            ("to be or not to be", ""),
            ("the red or a", "=red|red@0"),
            ("running*", "running*@0"),
            ("the*", "the*@0"),
        ] {
            assert_eq!(parsed(query, "english"), expected, "{query}");
        }
    }

    #[test]
    fn common_terms_are_beginnings_of_all_forms() {
        let languages = Languages::from_names("english,german").unwrap();
        let common = |text: &str| {
            let query = Query::parse(text, languages);
            query.common_term().map(str::to_owned)
        };
        assert_eq!(common("a policies").as_deref(), Some("polici"));
        assert_eq!(common("\"Häuser wo\"").as_deref(), Some("haus"));
        assert_eq!(common("some or other"), None);
        assert_eq!(common("-polite"), None);
    }
}
