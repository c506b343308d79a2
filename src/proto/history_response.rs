//! Responses that contain a history.

use std::fmt;

use prost::{
    DecodeError, Message,
    bytes::{Buf, BufMut, Bytes},
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

use super::{BeginTurnResponse, GetHistoryResponse};

/// Response with a repeated field of messages.
pub trait HasMessages: Message + Default {
    /// Number of the field.
    const MESSAGES: u32;
}

impl HasMessages for GetHistoryResponse {
    const MESSAGES: u32 = 1;
}

impl HasMessages for BeginTurnResponse {
    const MESSAGES: u32 = 4;
}

/// Response with messages that are already encoded, in addition to its own. They are written
/// without being decoded; on the wire, there is no difference.
#[derive(Clone, Default, PartialEq)]
pub struct HistoryResponse<R> {
    /// The response, with the messages that are not encoded yet.
    pub response: R,
    /// Encoded messages, which follow those of `response`.
    pub encoded: Vec<Bytes>,
}

impl<R: fmt::Debug> fmt::Debug for HistoryResponse<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HistoryResponse")
            .field("response", &self.response)
            .field("encoded.len", &self.encoded.len())
            .finish_non_exhaustive()
    }
}

impl<R> From<R> for HistoryResponse<R> {
    fn from(response: R) -> Self {
        Self {
            response,
            encoded: Vec::new(),
        }
    }
}

impl<R: HasMessages> Message for HistoryResponse<R> {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        self.response.encode_raw(buffer);
        for message in &self.encoded {
            encode_key(R::MESSAGES, WireType::LengthDelimited, buffer);
            encode_varint(message.len() as u64, buffer);
            buffer.put_slice(message);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.response.merge_field(tag, wire_type, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        let key = key_len(R::MESSAGES);
        let messages = self.encoded.iter().map(Bytes::len);
        let encoded: usize = messages
            .map(|length| key + encoded_len_varint(length as u64) + length)
            .sum();
        self.response.encoded_len() + encoded
    }

    fn clear(&mut self) {
        self.response.clear();
        self.encoded.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{self, Source};

    fn message(seq: i64) -> proto::Message {
        proto::Message {
            seq,
            content: "text".repeat(100),
            ..proto::Message::default()
        }
    }

    #[test]
    fn encoded_messages_are_decoded_like_others() {
        let plain = GetHistoryResponse {
            messages: (1..=3).map(message).collect(),
            last_seq: 3,
            source: Source::Cache.into(),
            ..GetHistoryResponse::default()
        };
        let passed = HistoryResponse {
            response: GetHistoryResponse {
                messages: vec![message(1)],
                ..plain.clone()
            },
            encoded: (2..=3)
                .map(|seq| message(seq).encode_to_vec().into())
                .collect(),
        };
        let bytes = passed.encode_to_vec();
        assert_eq!(bytes.len(), plain.encoded_len());
        assert_eq!(GetHistoryResponse::decode(&bytes[..]), Ok(plain.clone()));
        let decoded = HistoryResponse::<GetHistoryResponse>::decode(&bytes[..]);
        assert_eq!(decoded, Ok(plain.into()));

        let turn = HistoryResponse {
            response: BeginTurnResponse {
                token_count: 7,
                ..BeginTurnResponse::default()
            },
            encoded: vec![message(1).encode_to_vec().into()],
        };
        let decoded = BeginTurnResponse::decode(&turn.encode_to_vec()[..]).unwrap();
        assert_eq!(
            (decoded.messages, decoded.token_count),
            (vec![message(1)], 7)
        );
    }
}
