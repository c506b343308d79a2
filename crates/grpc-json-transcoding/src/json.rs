//! Conversion between encoded messages and JSON, as the JSON mapping of proto3 defines it.

mod number;
mod scalar;
mod structure;
mod tracked;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value, prost::Message as _,
};
use protobuf_wire::{Malformed, split_field};
use serde::{Serialize as _, de::DeserializeSeed as _};
use serde_json::{Map, error::Category};
use tonic::Status;

pub(crate) use self::scalar::short_name;
use self::{
    number::PlainNumbers,
    tracked::{Slot, TrackedSeed, Tracker},
};
use crate::{Limits, error::FieldViolation, template::FieldPath};

/// Well-known types, which have a special JSON format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Any,
    Duration,
    Empty,
    FieldMask,
    List,
    Struct,
    Timestamp,
    Value,
    /// A message around one scalar.
    Wrapper,
}

impl WellKnown {
    pub(crate) fn of(message: &MessageDescriptor) -> Option<Self> {
        Some(
            match message.full_name().strip_prefix("google.protobuf.")? {
                "Any" => Self::Any,
                "Duration" => Self::Duration,
                "Empty" => Self::Empty,
                "FieldMask" => Self::FieldMask,
                "ListValue" => Self::List,
                "Struct" => Self::Struct,
                "Timestamp" => Self::Timestamp,
                "Value" => Self::Value,
                "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value"
                | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
                _ => return None,
            },
        )
    }
}

/// Converts a JSON body to an encoded message of type `request`. The body is the whole
/// message, or one field of it.
///
/// # Errors
/// Fails if the body exceeds a limit or is not the JSON of such a message.
pub(crate) fn decode(
    request: &MessageDescriptor,
    field: Option<&FieldDescriptor>,
    json: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, Status> {
    let is_arbitrary = |path: &[_]| structure::is_arbitrary(request, field, path);
    structure::check(json, limits, is_arbitrary)
        .map_err(|excess| excess.into_status(request, field, limits))?;
    let read = match field.map(|field| (field, field.kind())) {
        Some((field, Kind::Message(message))) => {
            let read = parse(message, Slot::Field(field.clone()), json)?;
            let mut message = DynamicMessage::new(request.clone());
            message.set_field(field, Value::Message(read));
            message
        }
        _ => parse(request.clone(), Slot::Message(request.clone()), json)?,
    };
    Ok(read.encode_to_vec())
}

fn parse(
    message: MessageDescriptor,
    slot: Slot,
    json: &[u8],
) -> Result<DynamicMessage, FieldViolation> {
    let tracker = Tracker::new(slot);
    let mut parser = serde_json::Deserializer::from_slice(json);
    let parsed = TrackedSeed::root(message, &tracker).deserialize(&mut parser);
    let parsed = parsed.and_then(|message| {
        tracker.leave_root();
        parser.end()?;
        Ok(message)
    });
    parsed.map_err(|error| match error.classify() {
        Category::Data => tracker.violation(),
        // The text of a syntax error does not quote the document.
        _ => tracker.violation_of(&format!("is not valid JSON: {error}")),
    })
}

/// Values of the parameters in a path and a query, as the JSON of a request.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Map<String, serde_json::Value>);

impl Parameters {
    /// Converts a text to the type of a field and sets the field to the result. If the field is
    /// a list, the result is appended.
    pub(crate) fn set(&mut self, path: &FieldPath, text: String) {
        let Some((field, parents)) = path.0.split_last() else {
            return;
        };
        let mut object = &mut self.0;
        for parent in parents {
            let inner = object
                .entry(parent.name())
                .or_insert_with(|| Map::new().into());
            let serde_json::Value::Object(inner) = inner else {
                return;
            };
            object = inner;
        }
        let value = scalar::from_text(field, text);
        match object.get_mut(field.name()) {
            Some(serde_json::Value::Array(values)) => values.push(value),
            _ if field.is_list() => {
                object.insert(field.name().to_owned(), vec![value].into());
            }
            _ => {
                object.insert(field.name().to_owned(), value);
            }
        }
    }

    /// Converts the parameters to an encoded message of type `request`.
    ///
    /// # Errors
    /// Fails if a parameter does not have the type of its field.
    pub(crate) fn encode(&self, request: &MessageDescriptor) -> Result<Vec<u8>, FieldViolation> {
        if self.0.is_empty() {
            return Ok(Vec::new());
        }
        let tracker = Tracker::new(Slot::Message(request.clone()));
        let seed = TrackedSeed::root(request.clone(), &tracker);
        let message = seed.deserialize(&self.0).map_err(|_| tracker.violation())?;
        Ok(message.encode_to_vec())
    }
}

/// Error of a message that cannot be rendered as JSON.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrenderable {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the bytes are not an encoded message")]
    Decode(#[from] prost_reflect::prost::DecodeError),
    #[error("a value cannot be represented in JSON")]
    Serialize(#[from] serde_json::Error),
}

/// Renders an encoded message as JSON.
///
/// The elements of repeated message fields at the top level are converted one at a time, so
/// that a response with a long list needs little more memory than its two encodings.
///
/// # Errors
/// Fails if the bytes are not such a message or a value cannot be represented in JSON.
pub(crate) fn encode(
    message: &MessageDescriptor,
    encoded: &Bytes,
) -> Result<Vec<u8>, Unrenderable> {
    let mut encoded = encoded.clone();
    let mut json = Vec::with_capacity(encoded.len() / 4 * 5);
    let mut other_fields = Vec::new();
    let mut lists: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
    while !encoded.is_empty() {
        let field = split_field(&mut encoded)?;
        match field.value {
            Some(value) if list_element(message, field.number).is_some() => {
                lists.entry(field.number).or_default().push(value);
            }
            _ => other_fields.extend_from_slice(&field.encoded),
        }
    }
    let rest = DynamicMessage::decode(message.clone(), other_fields.as_slice())?;
    drop(other_fields);
    write(&rest, &mut json)?;
    for (number, values) in lists {
        let Some((field, element)) = list_element(message, number) else {
            continue;
        };
        // Remove the closing brace of the object that has been written, to add a field to it.
        json.pop();
        if json.len() > 1 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, field.json_name())?;
        json.push(b':');
        let mut separator = b'[';
        for value in values {
            json.push(separator);
            separator = b',';
            write(&DynamicMessage::decode(element.clone(), value)?, &mut json)?;
        }
        json.extend(b"]}");
    }
    Ok(json)
}

/// A repeated field of messages, and the type of its elements.
fn list_element(
    message: &MessageDescriptor,
    number: u32,
) -> Option<(FieldDescriptor, MessageDescriptor)> {
    if WellKnown::of(message).is_some() {
        return None;
    }
    let field = message.get_field(number).filter(FieldDescriptor::is_list)?;
    match field.kind() {
        Kind::Message(element) => Some((field, element)),
        _ => None,
    }
}

fn write(message: &DynamicMessage, json: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::with_formatter(json, PlainNumbers);
    message.serialize(&mut serializer)
}

#[cfg(test)]
mod tests;
