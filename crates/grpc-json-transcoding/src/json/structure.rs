//! The size of a document's structure, checked before the document is parsed.
//!
//! A list of two million numbers is four megabytes of JSON, and hundreds of megabytes as a
//! message. This check is one pass over the bytes that allocates nothing per value. It does not
//! validate the syntax: the parser rejects invalid JSON, and stops at the first error.

use std::ops::Range;

use json_numbers::is_rounded;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::Status;

use super::WellKnown;
use crate::{Limits, OBJECT_WEIGHT, error::FieldViolation, template::find_field};

/// Rule that a number violates if a double would round it.
const ROUNDED_NUMBER: &str =
    "must not have numbers beyond 2^53 that a double would round; use a string";

/// A limit that a document exceeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Values,
    Depth {
        max: usize,
        /// Keys and indices that lead to the value.
        path: Vec<Step>,
    },
    /// A number beyond 2^53 in arbitrary JSON that a double would round.
    RoundedNumber {
        path: Vec<Step>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A list or an object whose end has not been reached.
enum Container {
    /// An object, with the position of the current key including its quotation marks.
    Object { key: Range<usize> },
    /// A list, with the index of the current element.
    List { index: usize },
}

/// Checks a document against the limits. `is_arbitrary` returns whether the value at a path
/// belongs to a field for arbitrary JSON, whose numbers are doubles.
///
/// # Errors
/// Fails if the document exceeds a limit, or such a field has a number beyond 2^53 that
/// a double would round.
pub(super) fn check(
    json: &[u8],
    limits: &Limits,
    is_arbitrary: impl Fn(&[Step]) -> bool,
) -> Result<(), Excess> {
    let mut open: Vec<Container> = Vec::new();
    // Whether the values of the current list or key belong to such a field, if that was asked for.
    let mut arbitrary: Option<bool> = None;
    let mut values = 0;
    let mut at = 0;
    // Whether the next string is a key.
    let mut expects_key = false;
    while let Some(byte) = json.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => {
                at = end_of_string(json, at);
                match open.last_mut() {
                    Some(Container::Object { key }) if expects_key => {
                        *key = start..at;
                        arbitrary = None;
                    }
                    _ => values += 1,
                }
            }
            b'{' => {
                open.push(Container::Object { key: 0..0 });
                arbitrary = None;
                values += OBJECT_WEIGHT;
                expects_key = true;
            }
            b'[' => {
                open.push(Container::List { index: 0 });
                arbitrary = None;
                values += 1;
                expects_key = false;
            }
            b'}' | b']' => {
                open.pop();
                arbitrary = None;
                expects_key = false;
            }
            b':' => expects_key = false,
            b',' => match open.last_mut() {
                Some(Container::List { index }) => *index += 1,
                Some(Container::Object { .. }) => expects_key = true,
                None => {}
            },
            b' ' | b'\t' | b'\n' | b'\r' => {}
            // A number, true, false or null.
            _ => {
                let rest = json[at..].iter();
                at += rest.take_while(|byte| !is_delimiter(**byte)).count();
                values += 1;
                let literal = str::from_utf8(&json[start..at]).unwrap_or_default();
                if is_rounded(literal)
                    && *arbitrary.get_or_insert_with(|| is_arbitrary(&path(json, &open)))
                {
                    let path = path(json, &open);
                    return Err(Excess::RoundedNumber { path });
                }
            }
        }
        if values > limits.max_values {
            return Err(Excess::Values);
        }
        if open.len() > limits.max_depth {
            let max = limits.max_depth;
            let path = path(json, &open);
            return Err(Excess::Depth { max, path });
        }
    }
    Ok(())
}

/// Position after the quotation mark that ends a string.
fn end_of_string(json: &[u8], mut at: usize) -> usize {
    while let Some(byte) = json.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    json.len()
}

fn is_delimiter(byte: u8) -> bool {
    matches!(
        byte,
        b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"' | b' ' | b'\t' | b'\n' | b'\r'
    )
}

fn path(json: &[u8], open: &[Container]) -> Vec<Step> {
    let step = |container: &Container| match container {
        Container::List { index } => Step::Index(*index),
        Container::Object { key } => {
            let key = json.get(key.clone()).unwrap_or_default();
            Step::Key(serde_json::from_slice(key).unwrap_or_default())
        }
    };
    open.iter().map(step).collect()
}

impl Excess {
    /// The status of a request whose body is the message `request`, or one field of it.
    pub(super) fn into_status(
        self,
        request: &MessageDescriptor,
        field: Option<&FieldDescriptor>,
        limits: &Limits,
    ) -> Status {
        match self {
            Self::Values => (limits.too_many_values)(limits.max_values),
            Self::Depth { max, path } => {
                let (field, _) = resolve(request, field, &path);
                let reason = format!("must not be nested deeper than {max} levels");
                FieldViolation::new(field, reason).into()
            }
            Self::RoundedNumber { path } => {
                let (field, _) = resolve(request, field, &path);
                FieldViolation::new(field, ROUNDED_NUMBER).into()
            }
        }
    }
}

/// Whether a value belongs to a field for arbitrary JSON.
pub(super) fn is_arbitrary(
    request: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    steps: &[Step],
) -> bool {
    let (_, field) = resolve(request, field, steps);
    let Some(Kind::Message(message)) = field.map(|field| field.kind()) else {
        return false;
    };
    let known = WellKnown::of(&message);
    matches!(
        known,
        Some(WellKnown::Struct | WellKnown::Value | WellKnown::List)
    )
}

/// Path of the field that contains a value, and the last field of the path. The path does not
/// continue inside a field for arbitrary JSON, whose names and values are content of the caller.
fn resolve(
    request: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    steps: &[Step],
) -> (String, Option<FieldDescriptor>) {
    let mut names = String::new();
    let mut message = Some(request.clone());
    let mut list = None;
    let mut last = None;
    let first = field.map(|field| Step::Key(field.name().to_owned()));
    for step in first.iter().chain(steps) {
        match (step, message.take(), list.take()) {
            (Step::Key(key), Some(parent), _) => {
                let Some(field) = find_field(&parent, key) else {
                    break;
                };
                if !names.is_empty() {
                    names.push('.');
                }
                names.push_str(field.name());
                if field.is_list() {
                    list = Some(field.clone());
                } else if !field.is_map() {
                    message = described(&field);
                }
                last = Some(field);
            }
            (Step::Index(index), _, Some(field)) => {
                names.extend(["[", &index.to_string(), "]"]);
                message = described(&field);
            }
            _ => break,
        }
    }
    if names.is_empty() {
        names.push_str("body");
    }
    (names, last)
}

/// The message type of a field; `None` for scalars and well-known types.
fn described(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if WellKnown::of(&message).is_none() => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::LIMITS;

    fn limits(max_values: usize, max_depth: usize) -> Limits {
        Limits {
            max_bytes: usize::MAX,
            max_values,
            max_depth,
            ..LIMITS
        }
    }

    #[test]
    fn counts_values_and_weighs_objects() {
        for (json, values) in [
            ("", 0),
            ("1", 1),
            ("[]", 1),
            ("{}", 8),
            (r#" { "a" : "b" } "#, 9),
            (r#"["a,b", "\"", "\\", true, null, -1.5e3]"#, 7),
            (r#"{"a":[{"b":"c"},{}],"d":1}"#, 8 + 1 + 8 + 1 + 8 + 1),
            // The limits apply to invalid JSON too.
            (r#""unterminated"#, 1),
            (r#""\"#, 1),
            ("[1 2 3", 4),
            ("]]}1", 1),
        ] {
            assert_eq!(
                check(json.as_bytes(), &limits(values, 9), |_| true),
                Ok(()),
                "{json}"
            );
            if values > 0 {
                let excess = check(json.as_bytes(), &limits(values - 1, 9), |_| true);
                assert_eq!(excess, Err(Excess::Values), "{json}");
            }
        }
    }

    #[test]
    fn asks_once_for_a_list_whether_it_is_arbitrary() {
        let asked = std::cell::RefCell::new(Vec::new());
        let ids = vec!["9007199254740993"; 100].join(",");
        let json = format!(r#"{{"ids":[{ids}],"id":{}}}"#, 9_007_199_254_740_993_u64);
        let checked = check(json.as_bytes(), &limits(999, 9), |path| {
            asked.borrow_mut().push(path.to_vec());
            false
        });
        assert_eq!(checked, Ok(()));
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(
            *asked.borrow(),
            [vec![key("ids"), Step::Index(0)], vec![key("id")]]
        );
    }

    #[test]
    fn reports_the_path_of_a_value_that_is_too_deep() {
        let json = r#"{"x":[1,{"a":[0]},{"b\n":[],"c":{"d":[[1]]}}]}"#;
        let key = |key: &str| Step::Key(key.to_owned());
        let path = vec![key("x"), Step::Index(2), key("c"), key("d"), Step::Index(0)];
        let excess = check(json.as_bytes(), &limits(99, 4), |_| true);
        assert_eq!(
            excess,
            Err(Excess::Depth {
                max: 4,
                path: path.clone()
            })
        );
        let deeper = check(json.as_bytes(), &limits(99, 5), |_| true);
        let path = [path, vec![Step::Index(0)]].concat();
        assert_eq!(deeper, Err(Excess::Depth { max: 5, path }));
        assert_eq!(check(json.as_bytes(), &limits(99, 6), |_| true), Ok(()));
        let text = "[".repeat(1 << 20);
        assert!(check(text.as_bytes(), &limits(usize::MAX, 64), |_| true).is_err());
    }
}
