//! Whether a document matches a query, and its rank.

use crate::{
    document::{Document, Term, Terms},
    query::{Alternative, Element, Form, Operand, Query},
};

/// Returns whether a document matches a query. One without terms matches none.
pub fn matches(query: &Query, document: &Document) -> bool {
    let terms = Terms::of(document.as_bytes());
    let matches = |alternative| alternative_matches(alternative, &terms);
    !terms.is_empty() && query.alternatives.iter().any(matches)
}

fn alternative_matches(alternative: &Alternative, terms: &Terms<'_>) -> bool {
    let occurs = |operand: &Operand| operand_occurs(operand, terms);
    alternative.required.iter().all(occurs) && !alternative.excluded.iter().any(occurs)
}

fn operand_occurs(operand: &Operand, terms: &Terms<'_>) -> bool {
    match operand.elements.as_slice() {
        [] => false,
        [word] => occurs(word, terms),
        [first, others @ ..] => {
            if !others.iter().all(|word| occurs(word, terms)) {
                return false;
            }
            let mut starts = positions(first, terms);
            for word in others {
                let positions = positions(word, terms);
                starts.retain(|start| positions.binary_search(&(start + word.offset)).is_ok());
                if starts.is_empty() {
                    return false;
                }
            }
            true
        }
    }
}

fn occurs(word: &Element, terms: &Terms<'_>) -> bool {
    let mut forms = word.forms.iter();
    forms.any(|form| !terms.find(&form.term, form.is_prefix).is_empty())
}

fn positions(word: &Element, terms: &Terms<'_>) -> Vec<u16> {
    let forms = word.forms.iter();
    let found = forms.flat_map(|form| terms.find(&form.term, form.is_prefix));
    let mut positions: Vec<_> = found.flat_map(Term::positions).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// Weight of a position in `PostgreSQL`'s `ts_rank`.
const WEIGHT: f32 = 0.1;

/// Limit of the sum of the reciprocal squares, by which `ts_rank` divides.
const SUM_OF_SQUARES: f64 = 1.644_934_066_85;

/// Returns the rank of a document: that of `PostgreSQL`'s `ts_rank(document, query, 1)`, where the
/// query contains the forms as alternatives, to the last bit. Each occurrence of a form counts less
/// than the one before it, and long documents have lower ranks.
///
/// `forms` are [`Query::ranked_forms`]. Without any, the rank is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the result is that of the same operations in C"
)]
pub fn rank(forms: &[Form], document: &Document) -> f32 {
    if forms.is_empty() {
        return 0.0;
    }
    let terms = Terms::of(document.as_bytes());
    let mut rank: f32 = 0.0;
    for form in forms {
        for term in terms.find(&form.term, form.is_prefix) {
            let mut sum: f32 = 0.0;
            for number in 1..=u32::from(term.count()) {
                sum += WEIGHT / (number * number) as f32;
            }
            rank = (f64::from(rank) + f64::from(WEIGHT + sum - WEIGHT) / SUM_OF_SQUARES) as f32;
        }
    }
    rank /= forms.len() as f32;
    let length = f64::from(terms.length() + 1);
    (f64::from(rank) / (length.ln() / 2.0_f64.ln())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Languages;

    fn document(text: &str) -> Document {
        Document::of(text, Languages::default()).unwrap()
    }

    fn ranked(query: &str, text: &str) -> f32 {
        let query = Query::parse(query, Languages::default());
        rank(&query.ranked_forms(), &document(text))
    }

    #[test]
    fn phrases_match_in_order() {
        let found = |query: &str, text: &str| {
            matches(&Query::parse(query, Languages::default()), &document(text))
        };
        assert!(found("\"red fish\"", "a red fish swims"));
        assert!(!found("\"fish red\"", "a red fish swims"));
        assert!(found("\"blue and red\"", "fish, blue or red"));
        assert!(!found("\"blue and red\"", "blue red"));
        assert!(found("\"swimming fishes\"", "swims fish"));
        assert!(found("\"京大\" -\"大京\"", "北京大学"));
        assert!(!found("", "text"));
    }

    #[test]
    fn more_and_denser_matches_rank_higher() {
        assert!(ranked("word", "word word word") > ranked("word", "one word"));
        assert!(
            ranked("word", "one word")
                > ranked("word", &("word ".to_owned() + &"other x ".repeat(50)))
        );
        assert!(ranked("policies", "policies") > ranked("policies", "policy"));
        assert!(ranked("-word", "text") == 0.0);
    }
}
