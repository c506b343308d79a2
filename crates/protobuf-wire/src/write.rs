//! Writes the fields of messages that are not generated types, without intermediate values.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Appends a field with a varint.
pub fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

/// Appends a field with eight bytes.
pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field with four bytes.
pub fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    encode_key(number, WireType::ThirtyTwoBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field with bytes or a text.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a field with a message, whose fields `write` appends.
pub fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(number, WireType::LengthDelimited, out);
    // Most messages have a length of one byte. The length of a longer one moves its fields.
    let start = out.len();
    out.push(0);
    write(out);
    let length = out.len() - start - 1;
    let size = encoded_len_varint(length as u64);
    out.resize(out.len() + size - 1, 0);
    out.copy_within(start + 1..start + 1 + length, start + size);
    encode_varint(length as u64, &mut &mut out[start..start + size]);
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::{Struct, value::Kind};

    use super::*;

    #[test]
    fn writes_what_a_decoder_reads() {
        for length in [0, 1, 100, 127, 128, 129, 5_000, 20_000] {
            let text = "x".repeat(length);
            let mut written = Vec::new();
            // The entry of a map is a message with the key and the value.
            put_message(&mut written, 1, |out| {
                put_bytes(out, 1, b"key");
                put_message(out, 2, |out| put_bytes(out, 3, text.as_bytes()));
            });
            put_message(&mut written, 1, |out| {
                put_bytes(out, 1, b"number");
                put_message(out, 2, |out| put_fixed64(out, 2, 1.5_f64.to_bits()));
            });
            put_varint(&mut written, 200, u64::MAX);
            put_fixed32(&mut written, 201, 7);
            let read = Struct::decode(written.as_slice()).unwrap();
            let kind = |key: &str| read.fields[key].kind.clone().unwrap();
            assert_eq!(kind("key"), Kind::StringValue(text));
            assert_eq!(kind("number"), Kind::NumberValue(1.5));
            assert_eq!(read.fields.len(), 2);
        }
    }
}
