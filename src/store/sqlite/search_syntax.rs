//! What people write into a search box, as FTS5 wants it.
//!
//! The syntax is the one of PostgreSQL's `websearch_to_tsquery`: words that must
//! all be there, phrases in quotes, `or` between two, `-` before what must not be
//! there. As there, no text is wrong. Each word is quoted for FTS5, which then has
//! nothing to refuse.

use std::fmt::Write as _;

use crate::domain::{TextSearch, UserId};

/// PostgreSQL's English stop words, which it neither indexes nor searches for.
const STOP_WORDS: &str = "\
i me my myself we our ours ourselves you your yours yourself yourselves he him his \
himself she her hers herself it its itself they them their theirs themselves what \
which who whom this that these those am is are was were be been being have has had \
having do does did doing a an the and but if or because as until while of at by for \
with about against between into through during before after above below to from up \
down in out on off over under again further then once here there when where why how \
all any both each few more most other some such no nor not only own same so than too \
very s t can will just don should now";

/// A word or a phrase, and whether it must be missing.
struct Operand<'a> {
    text: &'a str,
    negated: bool,
}

/// The expression that finds this user's messages for a query. None when it is left
/// without words, and so finds nothing.
pub(super) fn expression(query: &str, user: &UserId, text_search: TextSearch) -> Option<String> {
    let mut owner = "owner : \"".to_owned();
    for byte in user.as_str().bytes() {
        // Writing into a string does not fail.
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

/// What must be there and what not, in parentheses. None without any word.
fn alternative(operands: &[Operand<'_>], owner: &str, text_search: TextSearch) -> Option<String> {
    let quoted = |negated: bool| -> Vec<String> {
        operands
            .iter()
            .filter(|operand| operand.negated == negated && has_words(operand.text, text_search))
            .map(|operand| format!("text : \"{}\"", operand.text))
            .collect()
    };
    let (wanted, unwanted) = (quoted(false), quoted(true));
    // Something has to be there for NOT to take from.
    let wanted = match (wanted.is_empty(), unwanted.is_empty()) {
        (true, true) => return None,
        (true, false) => owner.to_owned(),
        (false, _) => wanted.join(" AND "),
    };
    Some(if unwanted.is_empty() {
        format!("({wanted})")
    } else {
        format!("(({wanted}) NOT ({}))", unwanted.join(" OR "))
    })
}

/// Whether anything is left of a word or phrase when it is indexed.
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

/// The operands of a query, in the groups that `or` makes of them.
fn alternatives(query: &str) -> Vec<Vec<Operand<'_>>> {
    let mut group = Vec::new();
    let mut groups = Vec::new();
    let mut negated = false;
    let mut rest = query.trim_start_matches(is_separator);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('-') {
            negated = !negated;
            rest = after.trim_start_matches(is_separator);
            continue;
        }
        let is_quoted = rest.starts_with('"');
        let (text, after) = operand(rest);
        rest = after.trim_start_matches(is_separator);
        // An `or` that stands between nothing is a word.
        let is_between = !negated && !group.is_empty() && !rest.is_empty();
        if is_between && !is_quoted && text.eq_ignore_ascii_case("or") {
            groups.push(std::mem::take(&mut group));
        } else {
            group.push(Operand { text, negated });
            negated = false;
        }
    }
    groups.push(group);
    groups
}

/// The phrase or word that a text begins with, and what follows it.
fn operand(text: &str) -> (&str, &str) {
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
        expression(query, &user, text_search)
            .unwrap_or_default()
            .replace("owner : \"61\"", "owner")
            .replace("text : ", "")
    }

    #[test]
    fn the_syntax_is_translated() {
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
