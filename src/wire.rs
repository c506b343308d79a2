//! The protobuf wire format.
//!
//! No other module of this package parses or measures encoded messages by hand.

use prost::encoding::{DecodeContext, decode_key, decode_varint, encoded_len_varint, skip_field};

pub(crate) use prost::encoding::WireType;

/// Error of bytes that are not an encoded message.
#[derive(Debug)]
pub(crate) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// Reads a field's number and wire type.
pub(crate) fn read_key(bytes: &mut &[u8]) -> Result<(u32, WireType), Malformed> {
    Ok(decode_key(bytes)?)
}

/// Reads the length of a length-delimited value. The value follows it in `bytes`, complete.
pub(crate) fn read_length(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    let length = usize::try_from(decode_varint(bytes)?).map_err(|_| Malformed)?;
    if length > bytes.len() {
        return Err(Malformed);
    }
    Ok(length)
}

/// Advances `bytes` past the value of a field whose key has been read.
pub(crate) fn skip_value(
    number: u32,
    wire_type: WireType,
    bytes: &mut &[u8],
) -> Result<(), Malformed> {
    Ok(skip_field(
        wire_type,
        number,
        bytes,
        DecodeContext::default(),
    )?)
}

/// Number of scalars in the value of a packed field whose scalars have this wire type.
pub(crate) fn packed_count(element: WireType, value: &[u8]) -> usize {
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
pub(crate) fn delimited_size(length: usize) -> usize {
    const KEY: usize = 1;
    KEY + encoded_len_varint(length as u64) + length
}
