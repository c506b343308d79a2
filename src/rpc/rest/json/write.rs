use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use super::WellKnown;

/// How deep an answer is followed. Metadata has 32 levels, each of them two messages.
const MAX_DEPTH: u32 = 100;

/// The bytes are no such message.
#[derive(Debug)]
pub(in crate::rpc::rest) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

impl From<serde_json::Error> for Malformed {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

/// What stands on the wire for a field.
#[derive(Clone, Copy)]
enum Wire<'w> {
    Varint(u64),
    Double(f64),
    Bytes(&'w [u8]),
    Other,
}

/// Writes a message as JSON. Fields that have their default value are left out, as
/// protobuf leaves them out.
pub(in crate::rpc::rest) fn write(
    message: &MessageDescriptor,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    Writer { out }.message(message, wire, 0)
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl Writer<'_> {
    fn message(
        &mut self,
        message: &MessageDescriptor,
        wire: &[u8],
        depth: u32,
    ) -> Result<(), Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match WellKnown::of(message) {
            Some(WellKnown::Timestamp) => return self.timestamp(wire),
            Some(WellKnown::Duration) => return self.duration(wire),
            Some(WellKnown::Any) => return self.any(message.parent_pool(), wire, depth),
            Some(WellKnown::Value) => return self.value(message, wire, depth),
            Some(WellKnown::Struct | WellKnown::List) => {
                let field = message.get_field(1).ok_or(Malformed)?;
                return self.repeated(&field, &fields(wire)?, depth);
            }
            Some(WellKnown::FieldMask) => return Err(Malformed),
            None => {}
        }
        self.out.push(b'{');
        let begin = self.out.len();
        self.fields(message, wire, begin, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    /// Writes the fields of a message into an object that began at `begin`.
    fn fields(
        &mut self,
        message: &MessageDescriptor,
        wire: &[u8],
        begin: usize,
        depth: u32,
    ) -> Result<(), Malformed> {
        let fields = fields(wire)?;
        for found in fields.chunk_by(|(a, _), (b, _)| a == b) {
            let [.., (number, last)] = found else {
                continue;
            };
            let Some(field) = message.get_field(*number) else {
                continue;
            };
            self.separate(begin);
            serde_json::to_writer(&mut *self.out, field.json_name())?;
            self.out.push(b':');
            if field.is_list() || field.is_map() {
                self.repeated(&field, found, depth)?;
            } else {
                self.single(&field, *last, depth)?;
            }
        }
        Ok(())
    }

    fn separate(&mut self, begin: usize) {
        if self.out.len() > begin {
            self.out.push(b',');
        }
    }

    fn repeated(
        &mut self,
        field: &FieldDescriptor,
        found: &[(u32, Wire<'_>)],
        depth: u32,
    ) -> Result<(), Malformed> {
        let (open, close) = if field.is_map() {
            (b'{', b'}')
        } else {
            (b'[', b']')
        };
        self.out.push(open);
        let begin = self.out.len();
        for (_, wire) in found {
            self.separate(begin);
            match (field.is_map(), wire) {
                (true, Wire::Bytes(entry)) => self.entry(field, entry, depth)?,
                (false, _) => self.single(field, *wire, depth)?,
                _ => return Err(Malformed),
            }
        }
        self.out.push(close);
        Ok(())
    }

    /// One name of a map and what it stands for. Names are texts.
    fn entry(&mut self, map: &FieldDescriptor, wire: &[u8], depth: u32) -> Result<(), Malformed> {
        let Kind::Message(entry) = map.kind() else {
            return Err(Malformed);
        };
        let found = fields(wire)?;
        let last = |number| found.iter().rev().find(|(other, _)| *other == number);
        match last(1) {
            Some((_, Wire::Bytes(name))) => self.text(name)?,
            None => self.text(b"")?,
            _ => return Err(Malformed),
        }
        self.out.push(b':');
        let empty = Wire::Bytes(&[]);
        let value = last(2).map_or(empty, |(_, value)| *value);
        self.single(&entry.map_entry_value_field(), value, depth)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf extends 32 bits to 64"
    )]
    fn single(
        &mut self,
        field: &FieldDescriptor,
        wire: Wire<'_>,
        depth: u32,
    ) -> Result<(), Malformed> {
        match (field.kind(), wire) {
            (Kind::Message(message), Wire::Bytes(bytes)) => {
                return self.message(&message, bytes, depth + 1);
            }
            (Kind::String, Wire::Bytes(bytes)) => return self.text(bytes),
            (Kind::Bool, Wire::Varint(value)) => self.plain(value != 0),
            (Kind::Int32, Wire::Varint(value)) => self.plain(value as i32),
            (Kind::Uint32, Wire::Varint(value)) => self.plain(value as u32),
            (Kind::Int64, Wire::Varint(value)) => self.quoted(value.cast_signed()),
            (Kind::Uint64, Wire::Varint(value)) => self.quoted(value),
            (Kind::Double, Wire::Double(value)) => self.number(value),
            (Kind::Enum(values), Wire::Varint(value)) => match values.get_value(value as i32) {
                Some(value) => self.quoted(value.name()),
                None => self.plain(value as i32),
            },
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn plain(&mut self, value: impl std::fmt::Display) {
        // Writing into memory does not fail.
        let _ = write!(self.out, "{value}");
    }

    fn quoted(&mut self, value: impl std::fmt::Display) {
        self.plain(format_args!("\"{value}\""));
    }

    fn text(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
        Ok(serde_json::to_writer(&mut *self.out, text)?)
    }

    /// Whole numbers lose their ".0", so that they look as the caller wrote them.
    #[expect(clippy::cast_possible_truncation, reason = "exact below 2^53")]
    fn number(&mut self, value: f64) {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let is_whole = value.fract() == 0.0 && value.abs() < EXACT;
        if is_whole && (value != 0.0 || value.is_sign_positive()) {
            self.plain(value as i64);
        } else if value.is_finite() {
            self.plain(format_args!("{value:?}"));
        } else if value.is_nan() {
            self.quoted("NaN");
        } else {
            self.quoted(if value > 0.0 { "Infinity" } else { "-Infinity" });
        }
    }

    fn timestamp(&mut self, wire: &[u8]) -> Result<(), Malformed> {
        let (seconds, nanos) = seconds_and_nanos(wire)?;
        let nanos = u32::try_from(nanos).map_err(|_| Malformed)?;
        let time = DateTime::from_timestamp(seconds, nanos).ok_or(Malformed)?;
        self.quoted(time.to_rfc3339_opts(SecondsFormat::AutoSi, true));
        Ok(())
    }

    fn duration(&mut self, wire: &[u8]) -> Result<(), Malformed> {
        let (seconds, nanos) = seconds_and_nanos(wire)?;
        let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
        let (seconds, nanos) = (seconds.unsigned_abs(), nanos.unsigned_abs());
        if nanos == 0 {
            self.quoted(format_args!("{sign}{seconds}s"));
        } else {
            let fraction = format!("{nanos:09}");
            let fraction = fraction.trim_end_matches('0');
            // Three, six or nine digits.
            let digits = fraction.len().div_ceil(3) * 3;
            self.quoted(format_args!("{sign}{seconds}.{fraction:0<digits$}s"));
        }
        Ok(())
    }

    /// Any message, by the name that it has in the same contract. One that is not
    /// known there is shown as its bytes.
    fn any(&mut self, pool: &DescriptorPool, wire: &[u8], depth: u32) -> Result<(), Malformed> {
        let (mut url, mut value) = (&[][..], &[][..]);
        for (number, wire) in fields(wire)? {
            match (number, wire) {
                (1, Wire::Bytes(bytes)) => url = bytes,
                (2, Wire::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        self.out.extend(b"{\"@type\":");
        self.text(url)?;
        let url = std::str::from_utf8(url).map_err(|_| Malformed)?;
        let name = url.rsplit('/').next().unwrap_or_default();
        if let Some(message) = pool.get_message_by_name(name) {
            // Something stands before its first field.
            self.fields(&message, value, 0, depth)?;
        } else {
            self.out.extend(b",\"value\":");
            self.quoted(STANDARD.encode(value));
        }
        self.out.push(b'}');
        Ok(())
    }

    fn value(
        &mut self,
        message: &MessageDescriptor,
        wire: &[u8],
        depth: u32,
    ) -> Result<(), Malformed> {
        match fields(wire)?.last() {
            None | Some((1, _)) => {
                self.plain("null");
                Ok(())
            }
            Some((number, value)) => {
                let field = message.get_field(*number).ok_or(Malformed)?;
                self.single(&field, *value, depth)
            }
        }
    }
}

fn seconds_and_nanos(wire: &[u8]) -> Result<(i64, i64), Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, wire) in fields(wire)? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value.cast_signed(),
            (2, Wire::Varint(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

/// The fields of a message in the order of their numbers, those of one number in the
/// order in which they stand.
fn fields(mut wire: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, Malformed> {
    let mut found = Vec::new();
    while !wire.is_empty() {
        let (number, wire_type) = decode_key(&mut wire)?;
        let value = match wire_type {
            WireType::Varint => Wire::Varint(decode_varint(&mut wire)?),
            WireType::SixtyFourBit => {
                let (bytes, rest) = wire.split_first_chunk().ok_or(Malformed)?;
                wire = rest;
                Wire::Double(f64::from_le_bytes(*bytes))
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut wire)?).map_err(|_| Malformed)?;
                let (bytes, rest) = wire.split_at_checked(length).ok_or(Malformed)?;
                wire = rest;
                Wire::Bytes(bytes)
            }
            other => {
                skip_field(other, number, &mut wire, DecodeContext::default())?;
                Wire::Other
            }
        };
        found.push((number, value));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}
