use std::fmt;

use protobuf_wire::delimited_size;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Number, Value};

use super::{InvalidValue, SizeLimit, text::reject_nul};

mod literals;

/// JSON object that a caller attaches to a conversation, a message or a context. Numbers
/// are doubles, as in protobuf's Struct: numbers beyond 2^53 that a double does not represent are
/// rejected.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// Upper bound on the nesting of objects and lists; the metadata itself is level 1.
    pub const MAX_DEPTH: usize = 32;

    /// Number of values that an object within another value counts as: in memory it
    /// reserves space for eleven members however few it has.
    pub const OBJECT_WEIGHT: usize = 4;

    /// Validates an object.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the object contains U+0000, has more than [`Self::MAX_DEPTH`]
    /// levels, or more than `max_bytes` as compact JSON.
    pub fn parse(object: Map<String, Value>, max_bytes: usize) -> Result<Self, InvalidValue> {
        let root = Value::Object(object);
        check(&root, 1)?;
        let size = serde_json::to_vec(&root).map_or(usize::MAX, |json| json.len());
        if size > max_bytes {
            return Err(too_large(max_bytes));
        }
        match root {
            Value::Object(object) => Ok(Self(object)),
            _ => Err(InvalidValue::new("must be an object")),
        }
    }

    /// Parses a JSON object.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::parse`] does, and with [`InvalidValue`] if the text is not a JSON object of
    /// finite numbers, or contains a number beyond 2^53 that a double would round.
    pub fn from_json(json: &str, max_bytes: usize) -> Result<Self, InvalidValue> {
        /// Upper bound on the factor by which escapes and white space lengthen compact JSON.
        const MAX_EXPANSION: usize = 8;

        // Checked before parsing, since a value takes far more memory than its text.
        if json.len() > max_bytes.saturating_mul(MAX_EXPANSION) {
            return Err(too_large(max_bytes));
        }
        let mut root = parse_json(json)?;
        if literals::has_rounded_number(json) {
            return Err(InvalidValue::new(ROUNDED_NUMBER));
        }
        normalize_numbers(&mut root)?;
        match root {
            Value::Object(object) => Self::parse(object, max_bytes),
            _ => Err(InvalidValue::new("must be an object")),
        }
    }

    /// Converts a number. Whole numbers lose their ".0", so that the database shows them as
    /// the caller wrote them; the negative zero keeps its sign.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the number is not finite.
    #[expect(clippy::cast_possible_truncation, reason = "exact below 2^53")]
    pub fn number(number: f64) -> Result<Number, InvalidValue> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let is_negative_zero = number == 0.0 && number.is_sign_negative();
        if number.fract() == 0.0 && number.abs() < EXACT && !is_negative_zero {
            return Ok(Number::from(number as i64));
        }
        Number::from_f64(number).ok_or_else(|| InvalidValue::new("must have finite numbers only"))
    }

    /// The object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Converts into the object.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Whether the object has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Size as an encoded protobuf Struct, in bytes.
    pub fn size(&self) -> usize {
        object_size(&self.0)
    }

    /// Number of values at any depth, where an object within another value counts as
    /// [`Self::OBJECT_WEIGHT`].
    pub fn weight(&self) -> usize {
        self.0.values().map(weight).sum()
    }

    /// Bytes that a response accounts for the object: its size, or more if it has many small values.
    /// In memory, a value takes more bytes than encoded.
    pub fn footprint(&self) -> usize {
        const BYTES_PER_VALUE: usize = 32;
        self.size().max(self.weight() * BYTES_PER_VALUE)
    }

    /// Formats the object as compact JSON with sorted keys, so that equal objects have equal
    /// texts.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// Rule that a number violates if a double would round it.
const ROUNDED_NUMBER: &str =
    "must not have numbers beyond 2^53 that a double would round; use a string";

/// Parses a JSON text whose length is limited.
///
/// # Errors
///
/// Fails with [`InvalidValue`] if the text is not JSON of finite numbers.
pub(super) fn parse_json(json: &str) -> Result<Value, InvalidValue> {
    serde_json::from_str(json).map_err(|error| {
        // Accepts numbers and texts that are not representable, and any depth.
        if serde_json::from_str::<IgnoredAny>(json).is_err() {
            return InvalidValue::new("must be JSON");
        }
        describe(&error)
    })
}

/// Describes the error of a text that is known to be well-formed JSON.
fn describe(error: &serde_json::Error) -> InvalidValue {
    if error.to_string().starts_with("recursion limit") {
        too_deep()
    } else if error.to_string().starts_with("number out of range") {
        InvalidValue::new("must have finite numbers only")
    } else {
        InvalidValue::new("must have text of Unicode characters only")
    }
}

fn too_deep() -> InvalidValue {
    InvalidValue::new(format!(
        "must be at most {} levels deep",
        Metadata::MAX_DEPTH
    ))
}

fn too_large(max_bytes: usize) -> InvalidValue {
    let reason = format_args!("must have at most {max_bytes} bytes as JSON");
    InvalidValue::exceeds(SizeLimit::Metadata, reason)
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metadata").finish_non_exhaustive()
    }
}

fn object_size(object: &Map<String, Value>) -> usize {
    let fields = object.iter().map(|(key, value)| {
        // Protobuf omits an empty key.
        let key = if key.is_empty() {
            0
        } else {
            delimited_size(key.len())
        };
        delimited_size(key + delimited_size(value_size(value)))
    });
    fields.sum()
}

fn value_size(value: &Value) -> usize {
    const KEY: usize = 1;
    match value {
        Value::Null | Value::Bool(_) => KEY + 1,
        Value::Number(_) => KEY + 8,
        Value::String(text) => delimited_size(text.len()),
        Value::Array(items) => delimited_size(
            items
                .iter()
                .map(|item| delimited_size(value_size(item)))
                .sum(),
        ),
        Value::Object(object) => delimited_size(object_size(object)),
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            Metadata::OBJECT_WEIGHT + fields.values().map(weight).sum::<usize>()
        }
        _ => 1,
    }
}

fn normalize_numbers(value: &mut Value) -> Result<(), InvalidValue> {
    match value {
        Value::Number(number) => {
            *number = Metadata::number(number.as_f64().unwrap_or(f64::NAN))?;
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(normalize_numbers),
        Value::Object(fields) => fields.values_mut().try_for_each(normalize_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// Rejects U+0000, and values that are nested more deeply than [`Metadata::MAX_DEPTH`]. `depth` is the
/// level of the value.
pub(super) fn check(value: &Value, depth: usize) -> Result<(), InvalidValue> {
    if depth > Metadata::MAX_DEPTH && (value.is_object() || value.is_array()) {
        return Err(too_deep());
    }
    match value {
        Value::String(text) => reject_nul(text),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            reject_nul(key)?;
            check(value, depth + 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
