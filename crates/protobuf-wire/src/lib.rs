//! The protobuf wire format, for code that reads, measures or writes messages without generated types.
//!
//! No other package of this workspace parses, measures or writes encoded messages by hand.

mod write;

use bytes::Bytes;
use prost::encoding::{DecodeContext, decode_key, decode_varint, encoded_len_varint, skip_field};

pub use self::write::{put_bytes, put_fixed32, put_fixed64, put_message, put_varint};
pub use prost::encoding::WireType;

/// Error of bytes that are not an encoded message.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are not an encoded message")]
pub struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// Reads a field's number and wire type.
///
/// # Errors
/// Fails if the bytes do not begin with a valid key.
pub fn read_key(bytes: &mut &[u8]) -> Result<(u32, WireType), Malformed> {
    Ok(decode_key(bytes)?)
}

/// Reads the length of a length-delimited value. The value follows it in `bytes`, complete.
///
/// # Errors
/// Fails if there is no length, or fewer bytes follow than it states.
pub fn read_length(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    let length = usize::try_from(decode_varint(bytes)?).map_err(|_| Malformed)?;
    if length > bytes.len() {
        return Err(Malformed);
    }
    Ok(length)
}

/// Advances `bytes` past the value of a field whose key has been read.
///
/// # Errors
/// Fails if the bytes do not begin with a value of this wire type.
pub fn skip_value(number: u32, wire_type: WireType, bytes: &mut &[u8]) -> Result<(), Malformed> {
    Ok(skip_field(
        wire_type,
        number,
        bytes,
        DecodeContext::default(),
    )?)
}

/// Number of scalars in the value of a packed field whose scalars have this wire type.
pub fn packed_count(element: WireType, value: &[u8]) -> usize {
    match element {
        // The last byte of a varint is the one without the continuation bit.
        WireType::Varint => value.iter().filter(|byte| **byte < 0x80).count(),
        WireType::ThirtyTwoBit => value.len() / 4,
        WireType::SixtyFourBit => value.len() / 8,
        WireType::LengthDelimited | WireType::StartGroup | WireType::EndGroup => 0,
    }
}

/// Number of bytes of a length-delimited field with a value of `length` bytes, whose number is
/// below 16.
pub fn delimited_size(length: usize) -> usize {
    const KEY: usize = 1;
    KEY + encoded_len_varint(length as u64) + length
}

/// One field of an encoded message.
#[derive(Debug)]
pub struct EncodedField {
    /// Number of the field.
    pub number: u32,
    /// Key and value.
    pub encoded: Bytes,
    /// Value of a length-delimited field, without its length; `None` for other fields.
    pub value: Option<Bytes>,
}

/// Splits the first field off an encoded message, without copying it.
///
/// # Errors
/// Fails if the bytes are not an encoded message.
pub fn split_field(message: &mut Bytes) -> Result<EncodedField, Malformed> {
    let mut rest = message.clone();
    let (number, wire_type) = decode_key(&mut rest)?;
    let mut value = None;
    if wire_type == WireType::LengthDelimited {
        let length = usize::try_from(decode_varint(&mut rest)?).map_err(|_| Malformed)?;
        if length > rest.len() {
            return Err(Malformed);
        }
        value = Some(rest.split_to(length));
    } else {
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
    }
    let encoded = message.split_to(message.len() - rest.len());
    Ok(EncodedField {
        number,
        encoded,
        value,
    })
}

/// Value of the last occurrence of a length-delimited field.
///
/// # Errors
/// Fails if the bytes are not an encoded message.
pub fn last_value(message: &Bytes, number: u32) -> Result<Option<Bytes>, Malformed> {
    let mut rest = message.clone();
    let mut found = None;
    while !rest.is_empty() {
        let field = split_field(&mut rest)?;
        if field.number == number {
            found = field.value.or(found);
        }
    }
    Ok(found)
}
