use std::fmt;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    WellKnown,
    encoder::{Encoder, Step, expected},
    scalar::Scalar,
};
use crate::rpc::rest::template;

/// How much of a name that is none of ours an error repeats.
const MAX_NAME: usize = 64;

/// Reads an object as a message.
pub(super) struct MessageSeed<'e> {
    pub(super) encoder: &'e mut Encoder,
    pub(super) message: &'e MessageDescriptor,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let slot = Slot {
            encoder: self.encoder,
            place: Place::Body(self.message),
        };
        json.deserialize_any(slot)
    }
}

/// Reads a value into its place.
pub(super) struct Slot<'e> {
    encoder: &'e mut Encoder,
    place: Place<'e>,
}

#[derive(Clone, Copy)]
enum Place<'e> {
    /// The whole message.
    Body(&'e MessageDescriptor),
    /// A field of a message, as a list if it is repeated.
    Field(&'e FieldDescriptor),
    /// One of a repeated field's values, or a field that cannot be repeated.
    Item(&'e FieldDescriptor),
}

impl<'e> Slot<'e> {
    pub(super) fn field(encoder: &'e mut Encoder, field: &'e FieldDescriptor) -> Self {
        let place = Place::Field(field);
        Self { encoder, place }
    }

    fn item(encoder: &'e mut Encoder, field: &'e FieldDescriptor) -> Self {
        let place = Place::Item(field);
        Self { encoder, place }
    }

    fn scalar<E: serde::de::Error>(self, value: Scalar<'_>) -> Result<(), E> {
        let written = match self.place {
            Place::Field(field) if field.is_list() => return self.misplaced(),
            Place::Field(field) | Place::Item(field) => self.encoder.scalar(field, value),
            Place::Body(_) => return self.misplaced(),
        };
        match written {
            Ok(()) => self.encoder.go_on(),
            Err(reason) => Err(self.encoder.refuse(reason.0)),
        }
    }

    /// Says what belongs here.
    fn misplaced<E: serde::de::Error>(self) -> Result<(), E> {
        let reason = match self.place {
            Place::Body(_) => "must be an object".to_owned(),
            Place::Field(field) if field.is_list() => "must be a list".to_owned(),
            Place::Field(field) | Place::Item(field) => match field.kind() {
                Kind::Message(message) => expected(&message).to_owned(),
                Kind::Bool => "must be true or false".to_owned(),
                Kind::String => "must be a string".to_owned(),
                Kind::Enum(values) => format!("must be the name of a {}", values.name()),
                _ => "must be a number".to_owned(),
            },
        };
        Err(self.encoder.refuse(reason))
    }

    /// The message that the place holds, and its field's number.
    fn message(&self) -> Option<(u32, MessageDescriptor)> {
        match self.place {
            Place::Field(field) if field.is_list() => None,
            Place::Field(field) | Place::Item(field) => match field.kind() {
                Kind::Message(message) => Some((field.number(), message)),
                _ => None,
            },
            Place::Body(_) => None,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Signed(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.scalar(Scalar::Unsigned(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Scalar::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(value))
    }

    /// A null: the field is unset, but for a value that may be null itself.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        match (self.message(), self.place) {
            (Some((number, message)), _) if WellKnown::of(&message) == Some(WellKnown::Value) => {
                let start = self.encoder.begin(number);
                self.encoder.null();
                self.encoder.end(start);
                self.encoder.go_on()
            }
            (_, Place::Field(_)) => Ok(()),
            _ => self.misplaced(),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<(), A::Error> {
        if let Place::Field(field) = self.place
            && field.is_list()
        {
            return items(self.encoder, field, values);
        }
        let Some((number, message)) = self.message() else {
            return self.misplaced();
        };
        match WellKnown::of(&message) {
            Some(WellKnown::List) => {
                let start = self.encoder.begin(number);
                loose_items(self.encoder, &message, values)?;
                self.encoder.end(start);
            }
            Some(WellKnown::Value) => {
                let start = self.encoder.begin(number);
                let inner = inside(self.encoder, &message, 6)?;
                let list = self.encoder.begin(6);
                loose_items(self.encoder, &inner, values)?;
                self.encoder.end(list);
                self.encoder.end(start);
            }
            _ => return self.misplaced(),
        }
        self.encoder.go_on()
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        if let Place::Body(message) = self.place {
            return object(self.encoder, message, fields);
        }
        if let Place::Field(field) = self.place
            && field.is_map()
        {
            return entries(self.encoder, field, fields);
        }
        let Some((number, message)) = self.message() else {
            return self.misplaced();
        };
        match WellKnown::of(&message) {
            None => {
                let start = self.encoder.begin(number);
                object(self.encoder, &message, fields)?;
                self.encoder.end(start);
            }
            Some(WellKnown::Struct) => {
                let start = self.encoder.begin(number);
                loose_object(self.encoder, &message, fields)?;
                self.encoder.end(start);
            }
            Some(WellKnown::Value) => {
                let start = self.encoder.begin(number);
                let inner = inside(self.encoder, &message, 5)?;
                let object = self.encoder.begin(5);
                loose_object(self.encoder, &inner, fields)?;
                self.encoder.end(object);
                self.encoder.end(start);
            }
            Some(_) => return self.misplaced(),
        }
        self.encoder.go_on()
    }
}

/// The fields of a message that the contract describes.
fn object<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder,
    message: &MessageDescriptor,
    mut fields: A,
) -> Result<(), A::Error> {
    let mut seen = Vec::new();
    while let Some(name) = fields.next_key::<String>()? {
        let Some(field) = template::field(message, &name) else {
            let name = name.chars().take(MAX_NAME).collect();
            encoder.path.push(Step::Field(name));
            return Err(encoder.refuse(format!("is no field of {}", message.name())));
        };
        encoder.path.push(Step::Field(field.name().to_owned()));
        if seen.contains(&field.number()) {
            return Err(encoder.refuse("is given twice"));
        }
        seen.push(field.number());
        fields.next_value_seed(Slot::field(encoder, &field))?;
        encoder.path.pop();
    }
    Ok(())
}

fn items<'de, A: SeqAccess<'de>>(
    encoder: &mut Encoder,
    field: &FieldDescriptor,
    mut values: A,
) -> Result<(), A::Error> {
    for at in 0.. {
        encoder.path.push(Step::Item(at));
        let next = values.next_element_seed(Slot::item(encoder, field))?;
        encoder.path.pop();
        if next.is_none() {
            break;
        }
    }
    Ok(())
}

/// The values of a list that may hold anything. Errors name the field that the list
/// is in: what is inside is the caller's own.
fn loose_items<'de, A: SeqAccess<'de>>(
    encoder: &mut Encoder,
    list: &MessageDescriptor,
    mut values: A,
) -> Result<(), A::Error> {
    let field = known_field::<A::Error>(encoder, list, 1)?;
    while values
        .next_element_seed(Slot::item(encoder, &field))?
        .is_some()
    {}
    Ok(())
}

/// The same for an object that may hold anything.
fn loose_object<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder,
    object: &MessageDescriptor,
    fields: A,
) -> Result<(), A::Error> {
    let field = known_field::<A::Error>(encoder, object, 1)?;
    entries(encoder, &field, fields)
}

/// What a map has: an entry for each name, of which protobuf takes the last.
fn entries<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder,
    map: &FieldDescriptor,
    mut fields: A,
) -> Result<(), A::Error> {
    let Kind::Message(entry) = map.kind() else {
        return Err(encoder.refuse("is not served"));
    };
    let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
    while let Some(name) = fields.next_key::<String>()? {
        let start = encoder.begin(map.number());
        if let Err(reason) = encoder.scalar(&key, Scalar::Text(&name)) {
            return Err(encoder.refuse(reason.0));
        }
        fields.next_value_seed(Slot::item(encoder, &value))?;
        encoder.end(start);
    }
    Ok(())
}

/// The message that a field of a message holds.
fn inside<E: serde::de::Error>(
    encoder: &mut Encoder,
    message: &MessageDescriptor,
    number: u32,
) -> Result<MessageDescriptor, E> {
    match known_field::<E>(encoder, message, number)?.kind() {
        Kind::Message(inner) => Ok(inner),
        _ => Err(encoder.refuse("is not served")),
    }
}

fn known_field<E: serde::de::Error>(
    encoder: &mut Encoder,
    message: &MessageDescriptor,
    number: u32,
) -> Result<FieldDescriptor, E> {
    let field = message.get_field(number);
    field.ok_or_else(|| encoder.refuse("is not served"))
}
