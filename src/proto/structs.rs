//! Conversion between `google.protobuf.Struct` and metadata.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Value as Json};

use crate::domain::{InvalidValue, Metadata};

pub(crate) fn parse(value: Struct, max_bytes: usize) -> Result<Metadata, InvalidValue> {
    Metadata::parse(object(value, 1)?, max_bytes)
}

pub(crate) fn render(metadata: Metadata) -> Struct {
    render_object(metadata.into_map())
}

fn object(value: Struct, depth: usize) -> Result<Map<String, Json>, InvalidValue> {
    value
        .fields
        .into_iter()
        .map(|(key, value)| Ok((key, json(value, depth + 1)?)))
        .collect()
}

fn json(value: Value, depth: usize) -> Result<Json, InvalidValue> {
    // The domain checks the depth. This limit keeps the recursion finite.
    if depth > Metadata::MAX_DEPTH + 1 {
        return Err(InvalidValue::new(format!(
            "must be at most {} levels deep",
            Metadata::MAX_DEPTH
        )));
    }
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::NumberValue(number)) => Json::Number(Metadata::number(number)?),
        Some(Kind::StructValue(value)) => Json::Object(object(value, depth)?),
        Some(Kind::ListValue(ListValue { values })) => Json::Array(
            values
                .into_iter()
                .map(|value| json(value, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
    })
}

fn render_object(object: Map<String, Json>) -> Struct {
    Struct {
        fields: object
            .into_iter()
            .map(|(key, value)| (key, render_value(value)))
            .collect(),
    }
}

fn render_value(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(items) => Kind::ListValue(ListValue {
            values: items.into_iter().map(render_value).collect(),
        }),
        Json::Object(object) => Kind::StructValue(render_object(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_size_of_metadata_is_its_encoded_length() {
        for value in [
            json!({}),
            json!({"": null, "a": true, "b": [1, 0.5, "é"], "c": {"d": [[], {}, ""]}}),
            json!({"long": "x".repeat(20_000), "list": vec![7; 300]}),
        ] {
            let metadata = Metadata::from_json(&value.to_string(), 1 << 20).unwrap();
            let size = metadata.size();
            assert_eq!(render(metadata).encoded_len(), size, "{value}");
        }
    }
}
