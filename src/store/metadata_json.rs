//! JSON of metadata in the databases.
//!
//! PostgreSQL's `jsonb` expands numbers: it returns 1e308 as 309 digits, and the negative zero
//! without its sign. Metadata with such numbers is stored as text, in an object with one member, so
//! that its size and its values do not change. SQLite stores the same form.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Number, Value};
use sqlx::types::Json;

use super::operation_error::{BackendError, ErrorKind};
use crate::domain::Metadata;

/// Member that contains metadata as text.
const TEXT_KEY: &str = "conversation_memory.json";

/// The same member as a literal of SQL.
macro_rules! text_key {
    () => {
        "'conversation_memory.json'"
    };
}
pub(super) use text_key;

/// Metadata as it is written to a database.
pub(super) struct MetadataJson<'a>(&'a Metadata);

/// Converts metadata for binding.
pub(super) fn bindable(metadata: &Metadata) -> Json<MetadataJson<'_>> {
    Json(MetadataJson(metadata))
}

impl Serialize for MetadataJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.0.as_map();
        if !object.contains_key(TEXT_KEY) && object.values().all(is_kept) {
            return self.0.serialize(serializer);
        }
        let mut text = serializer.serialize_map(Some(1))?;
        text.serialize_entry(TEXT_KEY, &self.0.to_json())?;
        text.end()
    }
}

/// Whether `jsonb` returns a value as it was written.
fn is_kept(value: &Value) -> bool {
    match value {
        Value::Number(number) => is_plain(number),
        Value::Array(items) => items.iter().all(is_kept),
        Value::Object(fields) => fields.values().all(is_kept),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Whether a number is written without an exponent and is not the negative zero.
fn is_plain(number: &Number) -> bool {
    // The formatter of JSON writes other numbers with an exponent.
    const PLAIN: std::ops::Range<f64> = 1e-5..1e16;
    number.is_i64()
        || number.is_u64()
        || number
            .as_f64()
            .is_some_and(|double| PLAIN.contains(&double.abs()))
}

/// Converts the object in a column to metadata.
pub(super) fn decode(mut object: Map<String, Value>) -> Result<Metadata, BackendError> {
    if object.len() == 1
        && let Some(Value::String(text)) = object.get(TEXT_KEY)
    {
        return serde_json::from_str(text).map_err(|_| invalid());
    }
    object.values_mut().for_each(restore_doubles);
    serde_json::from_value(Value::Object(object)).map_err(|_| invalid())
}

fn invalid() -> BackendError {
    let cause = "the stored value of column metadata is not valid";
    BackendError::new(ErrorKind::Internal, cause)
}

/// Converts integers beyond 2^53 back to doubles, in rows of versions that stored every number as
/// `jsonb`: it writes the double 1e16 as the integer 10000000000000000, which is not equal to the
/// saved value. No caller can have sent such an integer, since numbers are doubles.
fn restore_doubles(value: &mut Value) {
    const LARGEST_EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let large = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            if large.is_some_and(|size| size > LARGEST_EXACT)
                && let Some(double) = number.as_f64().and_then(Number::from_f64)
            {
                *number = double;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(restore_doubles),
        Value::Object(fields) => fields.values_mut().for_each(restore_doubles),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(json: &str) -> String {
        let metadata = Metadata::from_json(json, 1 << 20).unwrap();
        let stored = serde_json::to_string(&bindable(&metadata).0).unwrap();
        let Value::Object(object) = serde_json::from_str(&stored).unwrap() else {
            panic!("an object is stored");
        };
        assert_eq!(decode(object).unwrap().to_json(), metadata.to_json());
        stored
    }

    #[test]
    fn numbers_that_jsonb_expands_are_stored_as_text() {
        for number in ["1e308", "-1e16", "5e-324", "9.5e-6", "-0.0", "1e21"] {
            let json = stored(&format!(r#"{{"a":[{{"b":{number}}}]}}"#));
            assert!(
                json.starts_with("{\"conversation_memory.json\":\"{"),
                "{json}"
            );
        }
        for json in [
            "{}",
            r#"{"a":[1,-7,0,0.1,123456.789,9007199254740992.0,0.00001,null,true,"1e308"]}"#,
            r#"{"a":{"conversation_memory.json":"{}"}}"#,
        ] {
            assert_eq!(stored(json), json);
        }
    }

    #[test]
    fn metadata_with_the_reserved_member_is_kept() {
        for json in [
            r#"{"conversation_memory.json":"{}"}"#,
            r#"{"a":1,"conversation_memory.json":1e300}"#,
        ] {
            assert_ne!(stored(json), json);
        }
    }
}
