use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{super::json::WellKnown, comments::Comments};

/// The schemas of the contract's messages, each made when it is first named.
#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) comments: Comments,
    made: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new(comments: Comments) -> Self {
        Self {
            comments,
            made: Map::new(),
        }
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.made)
    }

    /// A message.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(known) = WellKnown::of(message) {
            return well_known(known);
        }
        let name = message.name().to_owned();
        if !self.made.contains_key(&name) {
            // Named before it is made, should it hold itself.
            self.made.insert(name.clone(), Value::Null);
            let schema = self.object(message, &message.fields().collect::<Vec<_>>());
            self.made.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// Some of the fields of a message.
    pub(super) fn object(
        &mut self,
        message: &MessageDescriptor,
        fields: &[FieldDescriptor],
    ) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let mut schema = self.field(field);
            schema["description"] = self.comments.of_field(field).into();
            if self.comments.is_output_only(field) {
                schema["readOnly"] = true.into();
            }
            if self.comments.is_required(field) {
                required.push(field.json_name().to_owned());
                if field.kind() == Kind::String && !field.is_list() {
                    schema["minLength"] = 1.into();
                }
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "description": self.comments.of(message.parent_file().file_descriptor_proto(), message.path()),
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }

    /// A field's value.
    pub(super) fn field(&mut self, field: &FieldDescriptor) -> Value {
        if field.is_list() {
            return json!({ "type": "array", "items": self.kind(&field.kind()) });
        }
        if field.is_map() {
            let value = match field.kind() {
                Kind::Message(entry) => self.kind(&entry.map_entry_value_field().kind()),
                _ => json!({}),
            };
            return json!({ "type": "object", "additionalProperties": value });
        }
        self.kind(&field.kind())
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Message(message) => self.message(message),
            Kind::Enum(values) => self.values(values),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
            Kind::Uint32 => json!({ "type": "integer", "format": "uint32", "minimum": 0 }),
            // JSON's own numbers are not exact beyond 2^53.
            Kind::Int64 => json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" }),
            Kind::Uint64 => json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" }),
            Kind::Double => json!({ "type": "number", "format": "double" }),
            _ => json!({ "type": "string" }),
        }
    }

    fn values(&mut self, values: &EnumDescriptor) -> Value {
        let name = values.name().to_owned();
        if !self.made.contains_key(&name) {
            let file = values.parent_file();
            let mut description = self
                .comments
                .of(file.file_descriptor_proto(), values.path());
            let mut names = Vec::new();
            for value in values.values() {
                let means = self.comments.of(file.file_descriptor_proto(), value.path());
                let means = means.replace('\n', " ");
                description.extend(["\n- `", value.name(), "`: ", &means]);
                names.push(value.name().to_owned());
            }
            let schema = json!({ "type": "string", "description": description, "enum": names });
            self.made.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// What every failed call answers with.
    pub(super) fn error(&mut self) -> Value {
        const NAME: &str = "Error";
        self.made.entry(NAME).or_insert_with(|| {
            json!({
                "type": "object",
                "description": "Why a call failed, as Google's APIs say it.",
                "required": ["error"],
                "additionalProperties": false,
                "properties": { "error": {
                    "type": "object",
                    "required": ["code", "message", "status"],
                    "additionalProperties": false,
                    "properties": {
                        "code": { "type": "integer", "description": "The HTTP status." },
                        "message": { "type": "string", "description": "For people." },
                        "status": { "type": "string", "description": "A name of google.rpc.Code." },
                        "details": {
                            "type": "array",
                            "description": "For programs: messages of google.rpc.",
                            "items": {
                                "type": "object",
                                "required": ["@type"],
                                "properties": { "@type": { "type": "string" } },
                            },
                        },
                    },
                } },
            })
        });
        reference(NAME)
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn well_known(known: WellKnown) -> Value {
    match known {
        WellKnown::Timestamp => json!({ "type": "string", "format": "date-time" }),
        WellKnown::Duration | WellKnown::FieldMask => json!({ "type": "string" }),
        WellKnown::Struct | WellKnown::Any => json!({ "type": "object" }),
        WellKnown::Value => json!({}),
        WellKnown::List => json!({ "type": "array", "items": {} }),
    }
}
