//! Parses one JSON value, and reads members of it.

use std::{borrow::Cow, slice};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use domain::{from_rfc3339, from_unix_time};
use serde::Deserialize as _;
use serde_json::Value;

/// Upper bound on the depth of a value that is parsed by [`value`].
pub(crate) const MAX_DEPTH: usize = 127;

/// Parses a JSON value. Escaped halves of characters (`\ud83d` alone) and U+0000, which no text may
/// contain, become U+FFFD, as invalid UTF-8 does.
///
/// # Errors
/// Fails with the reason, which does not quote the value.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, String> {
    parse(bytes, |text| serde_json::from_str(text))
}

/// Parses a JSON value as [`value`] does, on a stack that suffices for its depth.
///
/// # Errors
/// Fails as [`value`] does.
pub(crate) fn deep_value(bytes: &[u8]) -> Result<Value, String> {
    parse(bytes, |text| {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.disable_recursion_limit();
        let value = Value::deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    })
}

fn parse(
    bytes: &[u8],
    parse: impl Fn(&str) -> Result<Value, serde_json::Error>,
) -> Result<Value, String> {
    let text = String::from_utf8_lossy(bytes);
    let text = replace_invalid_escapes(&text);
    parse(text.trim()).map_err(|error| {
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

/// The elements of a member with content: those of a list, or the member itself if it is no list.
pub(crate) fn contents<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    match object.get(key) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(elements)) => elements,
        Some(element) => slice::from_ref(element),
    }
}

/// A member with content as a text.
pub(crate) fn content<'a>(object: &'a Value, key: &str) -> Cow<'a, str> {
    object.get(key).map(text_or_json).unwrap_or_default()
}

/// A text, or another value as JSON. Null is empty.
pub(crate) fn text_or_json(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::default(),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A value of the file for the reason of a rejection, cut to some characters. Those that control a terminal
/// are escaped, because the reason is printed.
pub(crate) fn quoted(value: &Value) -> String {
    const MAX_CHARS: usize = 40;
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        Value::String(text) => text.as_str(),
        other => return other.to_string(),
    };
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Names the message that a reason concerns by its id, or else by its number.
pub(crate) fn in_message(id: Option<&str>, index: usize, reason: &str) -> String {
    match id {
        Some(id) => format!("message {}: {reason}", quoted(&id.into())),
        None => format!("message {}: {reason}", index + 1),
    }
}

/// The first of several members that is set, as a time: seconds, milliseconds, microseconds or
/// nanoseconds since 1970 as a number or a text, or ISO 8601. A time without an offset is in UTC.
/// Null, an empty text and 0 are no times.
///
/// # Errors
/// Fails with the reason if it cannot be read as a time.
pub(crate) fn time(object: &Value, keys: &[&str]) -> Result<Option<DateTime<Utc>>, String> {
    let mut members = keys.iter().filter_map(|&key| Some((key, object.get(key)?)));
    let Some((key, value)) = members.find(|(_, value)| is_set(value)) else {
        return Ok(None);
    };
    match time_of(value) {
        Some(time) => Ok(Some(time)),
        None => Err(format!("{key} is not a valid time: {}", quoted(value))),
    }
}

fn is_set(time: &Value) -> bool {
    match time {
        Value::Null => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.trim().is_empty() && text.trim().parse() != Ok(0.0),
        Value::Object(date) => date.get("$date").is_none_or(is_set),
        _ => true,
    }
}

fn time_of(value: &Value) -> Option<DateTime<Utc>> {
    match value {
        Value::Number(number) => unix_time(number.as_f64()?),
        Value::String(text) => text_time(text.trim()),
        // MongoDB's extended JSON.
        Value::Object(date) => match date.get("$date")? {
            Value::Object(date) => text_time(date.get("$numberLong")?.as_str()?),
            date => time_of(date),
        },
        _ => None,
    }
}

fn text_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = from_rfc3339(text) {
        return Some(time);
    }
    let valid = |time: DateTime<Utc>| from_rfc3339(&time.to_rfc3339()).ok();
    let normalized = text.replacen(' ', "T", 1);
    let normalized = normalized.replace(" UTC", "Z");
    for format in ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z"] {
        if let Ok(time) = DateTime::parse_from_str(&normalized, format) {
            return valid(time.to_utc());
        }
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(&normalized, format) {
            return valid(time.and_utc());
        }
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return valid(date.and_time(NaiveTime::MIN).and_utc());
    }
    text.parse().ok().and_then(unix_time)
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
            json!("2024-05-06 07:08:09.5+00:00"),
            json!("2024-05-06T09:08:09.5+0200"),
            json!("2024-05-06 07:08:09.5 UTC"),
            json!({"$date": "2024-05-06T07:08:09.5Z"}),
            json!({"$date": 1_714_979_289_500_i64}),
            json!({"$date": {"$numberLong": "1714979289500"}}),
        ] {
            let object = json!({"none": null, "at": value});
            assert_eq!(
                time(&object, &["none", "at"]),
                Ok(Some(expected)),
                "{object}"
            );
        }
        for (value, expected) in [
            (json!("2024-05-06"), "2024-05-06T00:00:00Z"),
            (json!("2024-05-06T07:08Z"), "2024-05-06T07:08:00Z"),
            (json!("2024-05-06 07:08"), "2024-05-06T07:08:00Z"),
            (json!(-1.5), "1969-12-31T23:59:58.5Z"),
            (json!("9999-12-31T23:59:59Z"), "9999-12-31T23:59:59Z"),
        ] {
            let expected = from_rfc3339(expected).unwrap();
            assert_eq!(time(&json!({"at": value}), &["at"]), Ok(Some(expected)));
        }
        for value in [
            json!(null),
            json!(0),
            json!(0.0),
            json!("0"),
            json!(" "),
            json!({"$date": null}),
        ] {
            assert_eq!(time(&json!({"at": value}), &["none", "at"]), Ok(None));
        }
    }

    #[test]
    fn times_that_are_not_understood_are_errors() {
        for (value, shown) in [
            (json!("soon"), "\"soon\""),
            (json!("NaN"), "\"NaN\""),
            (json!("-inf"), "\"-inf\""),
            (json!("07:08"), "\"07:08\""),
            (json!("10000-01-01T00:00:00Z"), "\"10000-01-01T00:00:00Z\""),
            (json!("2024-02-30T00:00:00Z"), "\"2024-02-30T00:00:00Z\""),
            (json!(1e30), "1e+30"),
            (json!(-99_999_999_999_i64), "-99999999999"),
            (json!(true), "true"),
            (json!([]), "a list"),
            (json!({"seconds": 1}), "an object"),
            (json!("\u{1b}[2J"), "\"\\u{1b}[2J\""),
        ] {
            let object = json!({"at": value, "later": 1_714_979_289});
            let error = time(&object, &["at", "later"]).unwrap_err();
            assert_eq!(error, format!("at is not a valid time: {shown}"));
        }
        let long = time(&json!({"at": "é".repeat(100)}), &["at"]).unwrap_err();
        assert_eq!(
            long,
            format!("at is not a valid time: \"{}\"…", "é".repeat(40))
        );
    }
}
