//! The size of a document's structure, checked before the document is parsed.
//!
//! A list of two million numbers is four megabytes of JSON, and hundreds of megabytes as a
//! message. This check is one pass over the bytes that allocates nothing per value. It does not
//! validate the syntax: the parser rejects invalid JSON, and stops at the first error.

use std::ops::Range;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use tonic::Status;

use super::WellKnown;
use crate::{Limits, OBJECT_WEIGHT, error::FieldViolation, template::find_field};

/// A limit that a document exceeds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Values {
        max: usize,
    },
    Depth {
        max: usize,
        /// Keys and indices that lead to the value.
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

/// Checks a document against the limits.
///
/// # Errors
/// Fails if the document exceeds a limit.
pub(super) fn check(json: &[u8], limits: &Limits) -> Result<(), Excess> {
    let mut open: Vec<Container> = Vec::new();
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
                    Some(Container::Object { key }) if expects_key => *key = start..at,
                    _ => values += 1,
                }
            }
            b'{' => {
                open.push(Container::Object { key: 0..0 });
                values += OBJECT_WEIGHT;
                expects_key = true;
            }
            b'[' => {
                open.push(Container::List { index: 0 });
                values += 1;
                expects_key = false;
            }
            b'}' | b']' => {
                open.pop();
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
            }
        }
        if values > limits.max_values {
            let max = limits.max_values;
            return Err(Excess::Values { max });
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
    ) -> Status {
        match self {
            Self::Values { max } => Status::resource_exhausted(format!(
                "the body has more than {max} values, where an object counts as {OBJECT_WEIGHT}"
            )),
            Self::Depth { max, path } => {
                let field = field_path(request, field, &path);
                let reason = format!("must not be nested deeper than {max} levels");
                FieldViolation::new(field, reason).into()
            }
        }
    }
}

/// Path of the field that contains a value. The path does not continue inside a field for
/// arbitrary JSON, whose names and values are content of the caller.
fn field_path(
    request: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    steps: &[Step],
) -> String {
    let mut names = String::new();
    let mut message = Some(request.clone());
    let mut list = None;
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
                    list = Some(field);
                } else if !field.is_map() {
                    message = described(&field);
                }
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
    names
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

    fn limits(max_values: usize, max_depth: usize) -> Limits {
        Limits {
            max_bytes: usize::MAX,
            max_values,
            max_depth,
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
            assert_eq!(check(json.as_bytes(), &limits(values, 9)), Ok(()), "{json}");
            if values > 0 {
                let excess = check(json.as_bytes(), &limits(values - 1, 9));
                assert_eq!(excess, Err(Excess::Values { max: values - 1 }), "{json}");
            }
        }
    }

    #[test]
    fn reports_the_path_of_a_value_that_is_too_deep() {
        let json = r#"{"x":[1,{"a":[0]},{"b\n":[],"c":{"d":[[1]]}}]}"#;
        let key = |key: &str| Step::Key(key.to_owned());
        let path = vec![key("x"), Step::Index(2), key("c"), key("d"), Step::Index(0)];
        let excess = check(json.as_bytes(), &limits(99, 4));
        assert_eq!(
            excess,
            Err(Excess::Depth {
                max: 4,
                path: path.clone()
            })
        );
        let deeper = check(json.as_bytes(), &limits(99, 5));
        let path = [path, vec![Step::Index(0)]].concat();
        assert_eq!(deeper, Err(Excess::Depth { max: 5, path }));
        assert_eq!(check(json.as_bytes(), &limits(99, 6)), Ok(()));
        let text = "[".repeat(1 << 20);
        assert!(check(text.as_bytes(), &limits(usize::MAX, 64)).is_err());
    }
}
