use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Invalid, text::no_nul};

/// A JSON object that the caller attaches to a conversation, a message or a
/// context. Numbers are doubles, as in protobuf's Struct.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Map<String, Value>);

impl Metadata {
    /// How deep objects and lists may be nested; the metadata itself is level 1.
    pub const MAX_DEPTH: usize = 32;

    /// Takes an object within the limits: no U+0000 anywhere, at most
    /// [`Self::MAX_DEPTH`] levels, at most `max_bytes` as compact JSON.
    pub fn parse(object: Map<String, Value>, max_bytes: usize) -> Result<Self, Invalid> {
        let root = Value::Object(object);
        check(&root, 1)?;
        let size = serde_json::to_vec(&root).map_or(usize::MAX, |json| json.len());
        if size > max_bytes {
            return Err(Invalid::new(format!(
                "must have at most {max_bytes} bytes as JSON"
            )));
        }
        match root {
            Value::Object(object) => Ok(Self(object)),
            _ => Err(Invalid::new("must be an object")),
        }
    }

    /// The object.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The object, given up.
    pub fn into_map(self) -> Map<String, Value> {
        self.0
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About how many bytes it takes to send.
    pub fn size(&self) -> usize {
        object_size(&self.0)
    }

    /// Compact JSON with sorted keys: the same metadata gives the same text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metadata").finish_non_exhaustive()
    }
}

fn object_size(object: &Map<String, Value>) -> usize {
    let fields = object
        .iter()
        .map(|(key, value)| key.len() + value_size(value));
    fields.sum()
}

fn value_size(value: &Value) -> usize {
    // What protobuf puts around a value.
    const FRAME: usize = 8;
    FRAME
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 8,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(value_size).sum(),
            Value::Object(object) => object_size(object),
        }
}

fn check(value: &Value, depth: usize) -> Result<(), Invalid> {
    if depth > Metadata::MAX_DEPTH && (value.is_object() || value.is_array()) {
        return Err(Invalid::new(format!(
            "must be at most {} levels deep",
            Metadata::MAX_DEPTH
        )));
    }
    match value {
        Value::String(text) => no_nul(text),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth + 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            no_nul(key)?;
            check(value, depth + 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
