//! Translation of search queries to FTS5 expressions.
//!
//! The syntax is the one of PostgreSQL's `websearch_to_tsquery`: all words must occur, quotes
//! enclose a phrase, `or` separates alternatives, and `-` precedes words or phrases that must
//! not occur. As in PostgreSQL, every text is a valid query. Each word is quoted, so that FTS5
//! does not reject it.

use std::fmt::Write as _;

use crate::domain::{TextSearch, UserId};

/// English stop words of PostgreSQL, which it neither indexes nor searches for.
const STOP_WORDS: &str = "\
i me my myself we our ours ourselves you your yours yourself yourselves he him his \
himself she her hers herself it its itself they them their theirs themselves what \
which who whom this that these those am is are was were be been being have has had \
having do does did doing a an the and but if or because as until while of at by for \
with about against between into through during before after above below to from up \
down in out on off over under again further then once here there when where why how \
all any both each few more most other some such no nor not only own same so than too \
very s t can will just don should now";

/// Word or phrase of a query.
struct Operand<'a> {
    text: &'a str,
    /// Whether the word or phrase must not occur.
    is_negated: bool,
}

/// Returns the expression that finds this user's messages for a query. `None` for a query that
/// has only stop words and separators, which finds nothing.
pub(super) fn fts5_expression(
    query: &str,
    user: &UserId,
    text_search: TextSearch,
) -> Option<String> {
    let mut owner = "owner : \"".to_owned();
    for byte in user.as_str().bytes() {
        // Writing to a string cannot fail.
        let _ = write!(owner, "{byte:02X}");
    }
    owner.push('"');
    let alternatives: Vec<String> = alternatives(query)
        .into_iter()
        .filter_map(|operands| alternative(&operands, &owner, text_search))
        .collect();
    if alternatives.is_empty() {
        return None;
    }
    Some(format!("{owner} AND ({})", alternatives.join(" OR ")))
}

/// Returns the expression of one alternative, in parentheses. `None` if it contains no word.
fn alternative(operands: &[Operand<'_>], owner: &str, text_search: TextSearch) -> Option<String> {
    let quoted = |is_negated: bool| -> Vec<String> {
        operands
            .iter()
            .filter(|operand| {
                operand.is_negated == is_negated && has_words(operand.text, text_search)
            })
            .map(|operand| format!("text : \"{}\"", operand.text))
            .collect()
    };
    let (required, excluded) = (quoted(false), quoted(true));
    // NOT needs a left operand.
    let required = match (required.is_empty(), excluded.is_empty()) {
        (true, true) => return None,
        (true, false) => owner.to_owned(),
        (false, _) => required.join(" AND "),
    };
    Some(if excluded.is_empty() {
        format!("({required})")
    } else {
        format!("(({required}) NOT ({}))", excluded.join(" OR "))
    })
}

/// Returns whether the index contains any word of this word or phrase.
fn has_words(text: &str, text_search: TextSearch) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .any(|word| text_search == TextSearch::Simple || !is_stop_word(word))
}

fn is_stop_word(word: &str) -> bool {
    STOP_WORDS
        .split(' ')
        .any(|stop| stop.eq_ignore_ascii_case(word))
}

/// Splits a query at `or` into alternatives, and each into its operands.
fn alternatives(query: &str) -> Vec<Vec<Operand<'_>>> {
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
            group.push(Operand { text, is_negated });
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

    fn translated(query: &str, text_search: TextSearch) -> String {
        let user = UserId::parse("a").unwrap();
        fts5_expression(query, &user, text_search)
            .unwrap_or_default()
            .replace("owner : \"61\"", "owner")
            .replace("text : ", "")
    }

    #[test]
    fn translates_the_search_syntax() {
        for (query, expected) in [
            ("red fish", r#"owner AND (("red" AND "fish"))"#),
            (r#""red fish" x"#, r#"owner AND (("red fish" AND "x"))"#),
            (
                "red OR fish x",
                r#"owner AND (("red") OR ("fish" AND "x"))"#,
            ),
            (
                "red -fish -x",
                r#"owner AND ((("red") NOT ("fish" OR "x")))"#,
            ),
            ("-fish", r#"owner AND (((owner) NOT ("fish")))"#),
            ("--fish", r#"owner AND (("fish"))"#),
            (
                r#"red"fish"-"x y"#,
                r#"owner AND ((("red" AND "fish") NOT ("x y")))"#,
            ),
            (
                "well-known a*b^",
                r#"owner AND (("well-known" AND "a*b^"))"#,
            ),
            ("red or", r#"owner AND (("red"))"#),
            ("or red", r#"owner AND (("red"))"#),
            ("the red or a", r#"owner AND (("red"))"#),
            ("to be or not to be", ""),
            (r#""the cat" NEAR"#, r#"owner AND (("the cat" AND "NEAR"))"#),
            (r#"" ((( & ! \ <-> - ""#, ""),
        ] {
            assert_eq!(translated(query, TextSearch::English), expected, "{query}");
        }
        let expected = r#"owner AND (("the"))"#;
        assert_eq!(translated("the", TextSearch::Simple), expected);
    }
}
