use chrono::DateTime;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::DeserializeSeed as _;

use super::{
    WellKnown,
    read::{MessageSeed, Slot},
    scalar::{Reason, Scalar, snake_case},
};
use crate::{domain::InvalidValue, rpc::field::FieldError};

/// The room that is kept for a message's length until the message is written.
const LENGTH: usize = 4;
const MAX_LENGTH: usize = (1 << (7 * LENGTH)) - 1;

/// Why a request is refused.
#[derive(Debug)]
pub(in crate::rpc::rest) enum Refusal {
    Field(FieldError),
    /// The protobuf that is made of it is larger than a request may be.
    TooLarge,
}

/// Writes a request as protobuf. What is written later is merged with what is there,
/// as protobuf merges: the last value of a field holds.
#[derive(Debug)]
pub(in crate::rpc::rest) struct Encoder {
    out: Vec<u8>,
    max: usize,
    /// The field that is being read.
    pub(super) path: Vec<Step>,
    refusal: Option<Refusal>,
}

#[derive(Debug)]
pub(super) enum Step {
    Field(String),
    Item(usize),
}

impl Encoder {
    /// Writes `max` bytes at most.
    pub(in crate::rpc::rest) fn new(max: usize) -> Self {
        Self {
            out: Vec::new(),
            max: max.min(MAX_LENGTH),
            path: Vec::new(),
            refusal: None,
        }
    }

    pub(in crate::rpc::rest) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Reads a body that is the whole message.
    pub(in crate::rpc::rest) fn message(
        &mut self,
        message: &MessageDescriptor,
        json: &[u8],
    ) -> Result<(), Refusal> {
        self.json(json, |encoder, json| {
            MessageSeed { encoder, message }.deserialize(json)
        })
    }

    /// Reads a body that is a field of the message.
    pub(in crate::rpc::rest) fn field(
        &mut self,
        field: &FieldDescriptor,
        json: &[u8],
    ) -> Result<(), Refusal> {
        self.path.push(Step::Field(field.name().to_owned()));
        self.json(json, |encoder, json| {
            Slot::field(encoder, field).deserialize(json)
        })?;
        self.path.pop();
        Ok(())
    }

    /// Takes what is protobuf already.
    pub(in crate::rpc::rest) fn protobuf(&mut self, message: &[u8]) {
        self.out.extend(message);
    }

    /// Writes a value that a path or a query gives as text.
    pub(in crate::rpc::rest) fn text(
        &mut self,
        path: &[FieldDescriptor],
        text: &str,
    ) -> Result<(), Refusal> {
        let Some((field, inner)) = path.split_first() else {
            return Ok(());
        };
        self.path.push(Step::Field(field.name().to_owned()));
        if inner.is_empty() {
            let value = match (field.kind(), text) {
                (Kind::Bool, "true") => Scalar::Bool(true),
                (Kind::Bool, "false") => Scalar::Bool(false),
                _ => Scalar::Text(text),
            };
            let written = self.scalar(field, value);
            written.map_err(|reason| self.refusal_of(reason))?;
        } else {
            let start = self.begin(field.number());
            self.text(inner, text)?;
            self.end(start);
        }
        self.path.pop();
        self.fits()
    }

    fn json(
        &mut self,
        json: &[u8],
        read: impl FnOnce(
            &mut Self,
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'_>>,
        ) -> Result<(), serde_json::Error>,
    ) -> Result<(), Refusal> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let read = read(self, &mut deserializer).and_then(|()| {
            // What follows is no field's fault.
            self.path.clear();
            deserializer.end()
        });
        match (read, self.refusal.take()) {
            (Err(_), Some(refusal)) => Err(refusal),
            // Only errors of JSON's own grammar are left; they quote no content.
            (Err(error), None) => {
                Err(self.refusal_of(Reason(format!("is not valid JSON: {error}"))))
            }
            (Ok(()), _) => self.fits(),
        }
    }

    fn fits(&self) -> Result<(), Refusal> {
        if self.out.len() > self.max {
            return Err(Refusal::TooLarge);
        }
        Ok(())
    }

    fn refusal_of(&self, Reason(reason): Reason) -> Refusal {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => path.extend([".", name]),
                Step::Item(at) => path.extend(["[", &at.to_string(), "]"]),
            }
        }
        if path.is_empty() {
            "body".clone_into(&mut path);
        }
        Refusal::Field(FieldError::new(path, InvalidValue::new(reason)))
    }

    /// Keeps why it is refused, for whoever gets the deserializer's error.
    pub(super) fn refuse<E: serde::de::Error>(&mut self, reason: impl Into<String>) -> E {
        self.refusal = Some(self.refusal_of(Reason(reason.into())));
        E::custom("refused")
    }

    /// Stops as soon as too much is written.
    pub(super) fn go_on<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.fits().map_err(|refusal| {
            self.refusal = Some(refusal);
            E::custom("refused")
        })
    }

    pub(super) fn begin(&mut self, number: u32) -> usize {
        encode_key(number, WireType::LengthDelimited, &mut self.out);
        self.out.extend([0; LENGTH]);
        self.out.len()
    }

    /// Fills in the length of a message. A short one is moved up; a long one has its
    /// length written over four bytes, which is as good.
    pub(super) fn end(&mut self, start: usize) {
        let length = self.out.len() - start;
        if let Ok(byte @ 0..0x80) = u8::try_from(length) {
            self.out[start - LENGTH] = byte;
            self.out.copy_within(start.., start - LENGTH + 1);
            self.out.truncate(start - LENGTH + 1 + length);
            return;
        }
        for place in 0..LENGTH {
            let more = if place + 1 < LENGTH { 0x80 } else { 0 };
            let bits = (length >> (7 * place)) & 0x7f;
            self.out[start - LENGTH + place] = more | u8::try_from(bits).unwrap_or_default();
        }
    }

    pub(super) fn scalar(
        &mut self,
        field: &FieldDescriptor,
        value: Scalar<'_>,
    ) -> Result<(), Reason> {
        let number = field.number();
        match field.kind() {
            Kind::Bool => match value {
                Scalar::Bool(value) => self.varint(number, value.into()),
                _ => return Err(Reason::new("must be true or false")),
            },
            Kind::Int32 => {
                let value = i32::try_from(value.whole()?).map_err(|_| Reason::range("32"))?;
                self.varint(number, i64::from(value).cast_unsigned());
            }
            Kind::Int64 => {
                let value = i64::try_from(value.whole()?).map_err(|_| Reason::range("64"))?;
                self.varint(number, value.cast_unsigned());
            }
            Kind::Uint32 => {
                let value = u32::try_from(value.whole()?).map_err(|_| Reason::range("32"))?;
                self.varint(number, value.into());
            }
            Kind::Uint64 => {
                let value = u64::try_from(value.whole()?).map_err(|_| Reason::range("64"))?;
                self.varint(number, value);
            }
            Kind::Double => self.double(number, value.float()?),
            Kind::String => match value {
                Scalar::Text(text) => self.bytes(number, text.as_bytes()),
                _ => return Err(Reason::new("must be a string")),
            },
            Kind::Enum(values) => {
                let named = match value {
                    Scalar::Text(name) => values.get_value_by_name(name),
                    _ => None,
                };
                let value = match named {
                    Some(named) => Some(named.number()),
                    None => value.whole().ok().and_then(|value| value.try_into().ok()),
                };
                let value = value.ok_or_else(|| Reason(format!("is no known {}", values.name())));
                self.varint(number, i64::from(value?).cast_unsigned());
            }
            Kind::Message(message) => self.well_known(number, &message, value)?,
            _ => return Err(Reason::new("is not served")),
        }
        Ok(())
    }

    fn well_known(
        &mut self,
        number: u32,
        message: &MessageDescriptor,
        value: Scalar<'_>,
    ) -> Result<(), Reason> {
        let start = match (WellKnown::of(message), value) {
            (Some(WellKnown::Timestamp), Scalar::Text(text)) => {
                let time = DateTime::parse_from_rfc3339(text)
                    .map_err(|_| Reason::new("must be a time as in RFC 3339"))?;
                let start = self.begin(number);
                self.varint(1, time.timestamp().cast_unsigned());
                self.varint(2, time.timestamp_subsec_nanos().into());
                start
            }
            (Some(WellKnown::FieldMask), Scalar::Text(text)) => {
                let start = self.begin(number);
                for path in text.split(',').filter(|path| !path.is_empty()) {
                    self.bytes(1, snake_case(path).as_bytes());
                }
                start
            }
            (Some(WellKnown::Value), value) => {
                let start = self.begin(number);
                match value {
                    Scalar::Bool(value) => self.varint(4, value.into()),
                    Scalar::Text(text) => self.bytes(3, text.as_bytes()),
                    number => self.double(2, number.float()?),
                }
                start
            }
            _ => return Err(Reason::new(expected(message))),
        };
        self.end(start);
        Ok(())
    }

    /// The null that a value of `google.protobuf.Value` may be.
    pub(super) fn null(&mut self) {
        self.varint(1, 0);
    }

    fn varint(&mut self, number: u32, value: u64) {
        encode_key(number, WireType::Varint, &mut self.out);
        encode_varint(value, &mut self.out);
    }

    fn double(&mut self, number: u32, value: f64) {
        encode_key(number, WireType::SixtyFourBit, &mut self.out);
        self.out.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, number: u32, value: &[u8]) {
        encode_key(number, WireType::LengthDelimited, &mut self.out);
        encode_varint(value.len() as u64, &mut self.out);
        self.out.extend(value);
    }
}

/// What a message's JSON looks like.
pub(super) fn expected(message: &MessageDescriptor) -> &'static str {
    match WellKnown::of(message) {
        Some(WellKnown::Timestamp) => "must be a time as in RFC 3339",
        Some(WellKnown::FieldMask) => "must be a string of paths",
        Some(WellKnown::List) => "must be a list",
        _ => "must be an object",
    }
}
