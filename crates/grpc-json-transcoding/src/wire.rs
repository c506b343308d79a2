//! The parts of the protobuf wire format that do not need a descriptor.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// `google.api.HttpBody` without its extensions.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HttpBody {
    #[prost(string, tag = "1")]
    pub(crate) content_type: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
}

/// Error of bytes that are not an encoded message.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are not an encoded message")]
pub(crate) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

/// One field of an encoded message.
pub(crate) struct EncodedField {
    pub(crate) number: u32,
    /// Key and value.
    pub(crate) encoded: Bytes,
    /// Value of a length-delimited field, without its length; `None` for other fields.
    pub(crate) value: Option<Bytes>,
}

/// Splits the first field off an encoded message, without copying it.
///
/// # Errors
/// Fails if the bytes are not an encoded message.
pub(crate) fn split_field(message: &mut Bytes) -> Result<EncodedField, Malformed> {
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
pub(crate) fn last_value(message: &Bytes, number: u32) -> Result<Option<Bytes>, Malformed> {
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
