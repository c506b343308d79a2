//! Parses one JSON value, and reads members of it.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDateTime, Utc};
use domain::{from_rfc3339, from_unix_time};
use serde_json::Value;

/// Parses a JSON value. Escaped halves of characters (`\ud83d` alone) and U+0000, which no text may
/// contain, become U+FFFD, as invalid UTF-8 does.
///
/// # Errors
/// Fails with the reason, which does not quote the value.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, String> {
    let text = String::from_utf8_lossy(bytes);
    let text = replace_invalid_escapes(&text);
    serde_json::from_str(text.trim()).map_err(|error| {
        if error.is_eof() {
            "is not complete: the file was probably cut off here".to_owned()
        } else {
            let (line, column) = (error.line(), error.column());
            format!("is not valid JSON, at line {line}, column {column} of the conversation")
        }
    })
}

fn replace_invalid_escapes(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        replaced.push_str(before);
        let unit = unicode_escape(escape);
        let length = match unit {
            Some(0xD800..=0xDBFF) => match escape.get(6..).and_then(unicode_escape) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => 0,
            },
            Some(0 | 0xDC00..=0xDFFF) => 0,
            Some(_) => 6,
            // A backslash and the character that it escapes.
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        if length == 0 {
            replaced.push(char::REPLACEMENT_CHARACTER);
            rest = &escape[6..];
        } else {
            replaced.push_str(&escape[..length]);
            rest = &escape[length..];
        }
    }
    replaced.push_str(rest);
    Cow::Owned(replaced)
}

fn unicode_escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
}

/// A member that is a text and not empty.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// A member as an id: a text, or a number as some products write it.
pub(crate) fn id(object: &Value, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(id) if !id.trim().is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// The elements of a member that is a list; none of another one.
pub(crate) fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    object
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A text, or another value as JSON. Null is empty.
pub(crate) fn text_or_json(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first of several members that is a time: seconds, milliseconds, microseconds or nanoseconds
/// since 1970 as a number or a text, or ISO 8601. A time without an offset is in UTC.
pub(crate) fn time(object: &Value, keys: &[&str]) -> Option<DateTime<Utc>> {
    keys.iter().find_map(|key| match object.get(key)? {
        Value::Number(number) => unix_time(number.as_f64()?),
        Value::String(text) => text_time(text.trim()),
        // MongoDB's extended JSON.
        Value::Object(date) => time(&Value::Object(date.clone()), &["$date"]),
        _ => None,
    })
}

fn text_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = from_rfc3339(text) {
        return Some(time);
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let local = local
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    match local {
        Some(time) => from_rfc3339(&time.and_utc().to_rfc3339()).ok(),
        None => text.parse().ok().and_then(unix_time),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the value is checked to be in range"
)]
fn unix_time(number: f64) -> Option<DateTime<Utc>> {
    // The magnitude tells the unit: 1e11 seconds are the year 5138.
    let seconds = match number.abs() {
        0.0 => return None,
        magnitude if magnitude < 1e11 => number,
        magnitude if magnitude < 1e14 => number / 1e3,
        magnitude if magnitude < 1e17 => number / 1e6,
        magnitude if magnitude < 1e20 => number / 1e9,
        _ => return None,
    };
    let micros = (seconds * 1e6).round() as i64;
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).ok()?;
    from_unix_time(micros.div_euclid(1_000_000), nanos).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn replaces_halves_of_characters_and_nul() {
        let read = |json: &str| value(json.as_bytes()).unwrap();
        assert_eq!(read(r#""\ud83d\ude00""#), json!("😀"));
        assert_eq!(read(r#""a\ud83dz\ude00""#), json!("a\u{fffd}z\u{fffd}"));
        assert_eq!(read(r#""\ud83d\ud83d\ude00""#), json!("\u{fffd}😀"));
        assert_eq!(read(r#""\\ud83d\n""#), json!("\\ud83d\n"));
        assert_eq!(read(r#""a\u0000b""#), json!("a\u{fffd}b"));
        assert_eq!(value(b"\"\xff\"").unwrap(), json!("\u{fffd}"));
        for (invalid, reason) in [
            (&b"{\"secret\":"[..], "cut off"),
            (b"{secret}", "valid JSON"),
        ] {
            let error = value(invalid).unwrap_err();
            assert!(
                error.contains(reason) && !error.contains("secret"),
                "{error}"
            );
        }
    }

    #[test]
    fn reads_times_of_each_form() {
        let expected = from_rfc3339("2024-05-06T07:08:09.5Z").unwrap();
        for value in [
            json!(1_714_979_289.5),
            json!("1714979289.5"),
            json!(1_714_979_289_500_i64),
            json!(1_714_979_289_500_000_i64),
            json!(1_714_979_289_500_000_000_i64),
            json!("2024-05-06T07:08:09.500Z"),
            json!("2024-05-06T09:08:09.500000+02:00"),
            json!("2024-05-06T07:08:09.5"),
            json!("2024-05-06 07:08:09.5"),
            json!({"$date": "2024-05-06T07:08:09.5Z"}),
        ] {
            let object = json!({"at": value});
            assert_eq!(time(&object, &["none", "at"]), Some(expected), "{object}");
        }
        for value in [json!(null), json!("soon"), json!(0), json!(1e30), json!([])] {
            assert_eq!(time(&json!({"at": value}), &["at"]), None);
        }
    }
}
