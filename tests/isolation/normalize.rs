//! Normalization of responses: ids and page tokens become numbers by the order of their appearance,
//! and times of the server's clock are removed.

use std::collections::HashMap;

use serde_json::Value;

/// Times that requests contain begin with this year, before that of any server's clock.
pub(crate) const YEAR_OF_REQUESTS: &str = "2024-";

/// Length of a UUID as text.
const ID_LENGTH: usize = 36;

/// Numbers of the ids and page tokens that one user has received from one server.
#[derive(Default)]
pub(crate) struct Normalizer {
    numbers: HashMap<String, usize>,
}

impl Normalizer {
    pub(crate) fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().filter_map(|(name, value)| {
                    let value = match name.as_str() {
                        // Whether the window was filled in time depends on the load of the machine.
                        "source" => return None,
                        "nextPageToken" => self.number(value.as_str().unwrap()).into(),
                        _ => self.value(value),
                    };
                    Some((name.clone(), value))
                });
                fields.collect::<serde_json::Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }

    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut normalized = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = if let Some(id) = rest.get(..ID_LENGTH).filter(|text| is_id(text)) {
                normalized += &self.number(id);
                ID_LENGTH
            } else if let Some(length) = length_of_time(rest) {
                let time = &rest[..length];
                let is_of_request = time.starts_with(YEAR_OF_REQUESTS);
                normalized += if is_of_request { time } else { "<time>" };
                length
            } else {
                normalized.push(first);
                first.len_utf8()
            };
            rest = &rest[length..];
        }
        normalized
    }

    fn number(&mut self, text: &str) -> String {
        let next = self.numbers.len();
        let number = self.numbers.entry(text.to_owned()).or_insert(next);
        format!("<{number}>")
    }
}

fn is_id(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    })
}

/// Returns the length of a time such as `2026-01-31T12:00:00.123456Z` at the start of a text.
fn length_of_time(text: &str) -> Option<usize> {
    let head = text.get(..19)?.as_bytes();
    let is_time = head.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let end = text[19..].find('Z').filter(|end| *end <= 10)?;
    is_time.then_some(19 + end + 1)
}

#[test]
fn ids_become_numbers_and_times_of_the_clock_are_removed() {
    let mut normalizer = Normalizer::default();
    let (a, b) = (
        "0190cafe-0000-7000-8000-000000000001",
        "0190cafe-0000-7000-8000-000000000002",
    );
    let text = format!("é {a},{b}/{a}x 2026-01-31T12:00:00.1Z 2024-01-31T12:00:00Z 2026-01-31");
    assert_eq!(
        normalizer.text(&text),
        "é <0>,<1>/<0>x <time> 2024-01-31T12:00:00Z 2026-01-31"
    );
}
