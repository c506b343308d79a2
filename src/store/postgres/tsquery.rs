//! Queries as texts of PostgreSQL's type `tsquery`. Terms contain no quotes and no backslashes.

use std::fmt::Write as _;

use crate::text_analysis::{Alternative, Element, Form, Operand, Query};

/// Returns the query that documents match. A query without alternatives matches none.
pub(super) fn tsquery(query: &Query) -> String {
    join(query.alternatives.iter().map(alternative), " | ")
}

/// Returns the query that determines the rank. `None` if no word is required.
pub(super) fn ranked_tsquery(query: &Query) -> Option<String> {
    let forms = query.ranked_forms();
    (!forms.is_empty()).then(|| join(forms.iter().map(form), " | "))
}

fn alternative(alternative: &Alternative) -> String {
    let required = alternative.required.iter().map(operand);
    let excluded = alternative.excluded.iter();
    let excluded = excluded.map(|excluded| format!("!{}", operand(excluded)));
    format!("({})", join(required.chain(excluded), " & "))
}

fn operand(operand: &Operand) -> String {
    let mut phrase = String::from("(");
    let mut previous = 0;
    for (index, word) in operand.elements.iter().enumerate() {
        if index > 0 {
            // A write to a string does not fail.
            let _ = write!(phrase, " <{}> ", word.offset - previous);
        }
        previous = word.offset;
        phrase += &element(word);
    }
    phrase + ")"
}

fn element(element: &Element) -> String {
    match element.forms.as_slice() {
        [only] => form(only),
        forms => format!("({})", join(forms.iter().map(form), " | ")),
    }
}

fn form(form: &Form) -> String {
    let suffix = if form.is_prefix { ":*" } else { "" };
    format!("'{}'{suffix}", form.term)
}

fn join(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_analysis::Languages;

    #[test]
    fn queries_are_translated() {
        for (text, expected, ranked) in [
            ("red fish", "(('red') & ('fish'))", Some("'fish' | 'red'")),
            ("\"a b\" -c", "(('a' <1> 'b') & !('c'))", Some("'a' | 'b'")),
            ("a or b*", "(('a')) | (('b':*))", Some("'a' | 'b':*")),
            ("-x", "(!('x'))", None),
            ("!", "", None),
        ] {
            let query = Query::parse(text, Languages::NONE);
            assert_eq!(tsquery(&query), expected, "{text}");
            assert_eq!(ranked_tsquery(&query).as_deref(), ranked, "{text}");
        }
        let query = Query::parse("swims", Languages::default());
        assert_eq!(tsquery(&query), "((('=swim' | 'swim' | 'swims')))");
    }
}
