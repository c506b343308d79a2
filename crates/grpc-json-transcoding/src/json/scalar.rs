//! Conversion of scalars for which this crate is stricter or more lenient than prost-reflect.

use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

use super::WellKnown;

/// Result of adapting a JSON string to its field.
pub(super) enum Text<'a> {
    /// The string itself.
    Unchanged(&'a str),
    /// Another string, to be used instead.
    Replaced(String),
    /// The number that the string represents.
    Number(f64),
    /// Number of the enum value that the string names.
    Enum(i32),
    /// The string is not a valid value of the field.
    Invalid,
}

/// Adapts a string to the kind of its field.
pub(super) fn adapt<'a>(kind: &Kind, text: &'a str) -> Text<'a> {
    match kind {
        // Rust accepts "inf" and "infinity", in any case.
        Kind::Double | Kind::Float => match text {
            "NaN" | "Infinity" | "-Infinity" => Text::Unchanged(text),
            _ => decimal(text).map_or(Text::Invalid, |_| Text::Unchanged(text)),
        },
        // "7.0" and "7e0" are whole numbers.
        _ if is_integer(kind) => match text.parse::<i128>() {
            Ok(_) => Text::Unchanged(text),
            Err(_) => decimal(text).map_or(Text::Invalid, Text::Number),
        },
        Kind::Enum(values) => match find_value(values, text) {
            Some(value) => Text::Enum(value.number()),
            None => Text::Invalid,
        },
        // Paths are also accepted with the names of the proto file.
        Kind::Message(message) if WellKnown::of(message) == Some(WellKnown::FieldMask) => {
            Text::Replaced(camel_case(text))
        }
        _ => Text::Unchanged(text),
    }
}

/// Whether a field has an integer type.
pub(super) fn is_integer(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Double
            | Kind::Float
            | Kind::Bool
            | Kind::String
            | Kind::Bytes
            | Kind::Message(_)
            | Kind::Enum(_)
    )
}

/// Converts a floating-point number to an integer; `None` if it has a fraction or is too large.
#[expect(clippy::cast_possible_truncation, reason = "whole and below 2^64")]
pub(super) fn whole(value: f64) -> Option<i128> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    (value.fract() == 0.0 && value.abs() < LIMIT).then_some(value as i128)
}

/// Parses a number in JSON syntax.
fn decimal(text: &str) -> Option<f64> {
    let is_plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let value: f64 = text.bytes().all(is_plain).then(|| text.parse().ok())??;
    value.is_finite().then_some(value)
}

fn camel_case(paths: &str) -> String {
    let mut camel = String::with_capacity(paths.len());
    let mut letters = paths.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '_' && next.is_ascii_lowercase() => {
                camel.push(next.to_ascii_uppercase());
                letters.next();
            }
            _ => camel.push(letter),
        }
    }
    camel
}

/// Finds an enum's value by its name or its short name.
fn find_value(values: &EnumDescriptor, name: &str) -> Option<EnumValueDescriptor> {
    values
        .get_value_by_name(name)
        .or_else(|| values.values().find(|value| short_name(value) == name))
}

/// Name of an enum's value in lower case and without the prefix that the enum's name gives it:
/// `user` for `ROLE_USER` of `Role`.
pub(crate) fn short_name(value: &EnumValueDescriptor) -> String {
    let mut prefix = String::new();
    for letter in value.parent_enum().name().chars() {
        if letter.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix.push('_');
    let name = value.name();
    name.strip_prefix(&prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// Converts the text of a parameter in a path or a query to the JSON value of its field.
pub(super) fn from_text(field: &FieldDescriptor, text: String) -> serde_json::Value {
    match (field.kind(), text.as_str()) {
        (Kind::Bool, "true") => true.into(),
        (Kind::Bool, "false") => false.into(),
        (Kind::Enum(_), number) if number.parse::<i32>().is_ok() => {
            number.parse::<i32>().unwrap_or_default().into()
        }
        _ => text.into(),
    }
}

/// Rule that a value of the wrong type violates.
pub(super) fn expected(kind: &Kind) -> String {
    let rule = match kind {
        Kind::Bool => "must be true or false",
        Kind::String => "must be a string",
        Kind::Bytes => "must be a string of base64",
        Kind::Double | Kind::Float => "must be a number",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "must be a whole number of 32 bits",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "must be a whole number of 64 bits",
        Kind::Uint32 | Kind::Fixed32 => "must be a whole number of 32 bits, 0 or more",
        Kind::Uint64 | Kind::Fixed64 => "must be a whole number of 64 bits, 0 or more",
        Kind::Enum(values) => return expected_enum(values),
        Kind::Message(message) => expected_message(message),
    };
    rule.to_owned()
}

/// Lists the values of an enum, except the value 0, which means that no value is set.
fn expected_enum(values: &EnumDescriptor) -> String {
    let valid: Vec<_> = values
        .values()
        .filter(|value| value.number() != 0)
        .collect();
    let names: Vec<_> = valid.iter().map(EnumValueDescriptor::name).collect();
    let short: Vec<_> = valid.iter().map(short_name).collect();
    format!(
        "must be one of {} (or {})",
        names.join(", "),
        short.join(", ")
    )
}

fn expected_message(message: &MessageDescriptor) -> &'static str {
    match WellKnown::of(message) {
        Some(WellKnown::Timestamp) => "must be a time as in RFC 3339: 2024-02-29T12:00:00Z",
        Some(WellKnown::Duration) => "must be a duration in seconds: 1.5s",
        Some(WellKnown::FieldMask) => "must be a string of field names, separated by commas",
        Some(WellKnown::List) => "must be a list",
        Some(WellKnown::Wrapper) => "must be a scalar",
        Some(WellKnown::Any | WellKnown::Empty | WellKnown::Struct | WellKnown::Value) | None => {
            "must be an object"
        }
    }
}
