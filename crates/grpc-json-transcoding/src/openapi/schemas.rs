use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::comments::Comments;
use crate::json::{WellKnown, short_name};

/// Schemas of messages and enums, each of which is created when it is first referenced.
#[derive(Debug)]
pub(super) struct Schemas {
    pub(super) comments: Comments,
    by_name: Map<String, Value>,
}

impl Schemas {
    pub(super) fn new(comments: Comments) -> Self {
        Self {
            comments,
            by_name: Map::new(),
        }
    }

    pub(super) fn finish(self) -> Value {
        Value::Object(self.by_name)
    }

    /// Schema of a message.
    pub(super) fn message(&mut self, message: &MessageDescriptor) -> Value {
        if let Some(known) = WellKnown::of(message) {
            return well_known(known);
        }
        let name = message.name().to_owned();
        if !self.by_name.contains_key(&name) {
            // The name is reserved before the schema is complete, since a message can contain
            // itself.
            self.by_name.insert(name.clone(), Value::Null);
            let schema = self.object(message, &message.fields().collect::<Vec<_>>());
            self.by_name.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// Schema of an object with some of the fields of a message.
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
            "description": self.comments.of_message(message),
            "properties": properties,
            "additionalProperties": false,
        });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }

    /// Schema of a field's value.
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
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                json!({ "type": "integer", "format": "int32" })
            }
            Kind::Uint32 | Kind::Fixed32 => {
                json!({ "type": "integer", "format": "uint32", "minimum": 0 })
            }
            // Numbers of JSON are not exact beyond 2^53.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                json!({ "type": "string", "format": "int64", "pattern": "^-?[0-9]+$" })
            }
            Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "string", "format": "uint64", "pattern": "^[0-9]+$" })
            }
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::String => json!({ "type": "string" }),
        }
    }

    fn values(&mut self, values: &EnumDescriptor) -> Value {
        let name = values.name().to_owned();
        if !self.by_name.contains_key(&name) {
            let file = values.parent_file();
            let file = file.file_descriptor_proto();
            let mut description = self.comments.at(file, values.path());
            let mut names = Vec::new();
            for value in values.values() {
                let comment = self.comments.at(file, value.path()).replace('\n', " ");
                description.extend(["\n- `", value.name(), "`: ", &comment]);
                names.push(value.name().to_owned());
            }
            if let Some(example) = values.values().last().as_ref().map(short_name) {
                description.extend([
                    "\n\nRequests may also use lower case without the prefix: `",
                    &example,
                    "`.",
                ]);
            }
            let schema = json!({ "type": "string", "description": description, "enum": names });
            self.by_name.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// Schema of the response to a failed call.
    pub(super) fn error(&mut self) -> Value {
        const NAME: &str = "Error";
        self.by_name.entry(NAME).or_insert_with(|| {
            json!({
                "type": "object",
                "description": "Error of a call, in the form of Google's APIs (AIP-193).",
                "required": ["error"],
                "additionalProperties": false,
                "properties": { "error": {
                    "type": "object",
                    "required": ["code", "message", "status"],
                    "additionalProperties": false,
                    "properties": {
                        "code": { "type": "integer", "description": "HTTP status." },
                        "message": { "type": "string", "description": "Explanation for people." },
                        "status": { "type": "string", "description": "Name of a google.rpc.Code." },
                        "details": {
                            "type": "array",
                            "description": "Details for programs: messages of google.rpc.",
                            "items": {
                                "type": "object",
                                "required": ["@type"],
                                "properties": { "@type": { "type": "string" } },
                                "additionalProperties": true,
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
        // TypeScript generators would treat an object without `additionalProperties` as empty.
        WellKnown::Struct | WellKnown::Any => {
            json!({ "type": "object", "additionalProperties": true })
        }
        WellKnown::Empty => json!({ "type": "object" }),
        WellKnown::Value | WellKnown::Wrapper => json!({}),
        WellKnown::List => json!({ "type": "array", "items": {} }),
    }
}
