//! Messages as they are stored in windows.

use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    domain::{Message, MessageId, Role},
    recent::EncodedMessage,
};

/// Bytes of an id. It precedes the rest, where a script can find it.
const ID_BYTES: usize = 16;

/// What follows the id. The message itself is the last field, so that the others can be read
/// without it.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
struct Entry {
    #[prost(int64, tag = "1")]
    seq: i64,
    /// Number of the role in [`ROLES`].
    #[prost(uint32, tag = "2")]
    role: u32,
    #[prost(uint64, tag = "3")]
    tokens: u64,
    #[prost(uint64, tag = "4")]
    size: u64,
    #[prost(bool, tag = "5")]
    pinned: bool,
    #[prost(bool, tag = "6")]
    has_only_reasoning: bool,
    #[prost(bool, tag = "7")]
    has_blobs: bool,
    #[prost(string, repeated, tag = "8")]
    calls: Vec<String>,
    #[prost(string, repeated, tag = "9")]
    results: Vec<String>,
    #[prost(bytes = "bytes", tag = "15")]
    message: Bytes,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// Roles by their numbers, which must not change.
const ROLES: [Role; 4] = [Role::User, Role::Assistant, Role::System, Role::Tool];

/// Encodes a message as an entry.
pub(super) fn encode(message: &Message) -> Bytes {
    let encoded = EncodedMessage::encode(message);
    let role = ROLES.iter().position(|role| *role == encoded.role);
    let entry = Entry {
        seq: encoded.seq,
        role: role
            .and_then(|role| u32::try_from(role).ok())
            .unwrap_or_default(),
        tokens: encoded.tokens,
        size: encoded.size as u64,
        pinned: encoded.pinned,
        has_only_reasoning: encoded.has_only_reasoning,
        has_blobs: encoded.has_blobs,
        calls: encoded.calls,
        results: encoded.results,
        message: encoded.bytes,
    };
    let mut bytes = BytesMut::with_capacity(ID_BYTES + entry.encoded_len());
    bytes.put_slice(encoded.id.as_uuid().as_bytes());
    entry.encode_raw(&mut bytes);
    bytes.freeze()
}

/// Decodes an entry, without the message in it. `None` if the entry is invalid.
pub(super) fn decode(mut bytes: Bytes) -> Option<EncodedMessage> {
    if bytes.len() < ID_BYTES {
        return None;
    }
    let id = Uuid::from_slice(&bytes.split_to(ID_BYTES)).ok()?;
    let entry = Entry::decode(bytes).ok()?;
    if entry.message.is_empty() {
        return None;
    }
    Some(EncodedMessage {
        id: MessageId::from_uuid(id),
        seq: entry.seq,
        role: *ROLES.get(entry.role as usize)?,
        tokens: entry.tokens,
        size: usize::try_from(entry.size).ok()?,
        pinned: entry.pinned,
        calls: entry.calls,
        results: entry.results,
        has_only_reasoning: entry.has_only_reasoning,
        has_blobs: entry.has_blobs,
        bytes: entry.message,
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        domain::{AuthorName, Content, ConversationId, Metadata, Part},
        proto,
    };

    fn message(content: String, micros: i64) -> Message {
        Message {
            id: MessageId::from_uuid(Uuid::from_u128(7)),
            conversation_id: ConversationId::from_uuid(Uuid::from_u128(8)),
            seq: 9_007_199_254_740_993,
            role: Role::Tool,
            name: AuthorName::parse("ann").ok(),
            parts: vec![Part::ToolCallResponse {
                id: "call_1".to_owned(),
                bytes: content.len(),
            }],
            content: Content::from_stored(content),
            token_count: Some(9),
            pinned: true,
            redacted: false,
            tokens_used: Some(-1),
            latency_ms: None,
            created_at: DateTime::from_timestamp_micros(micros).unwrap(),
            metadata: Metadata::parse(
                serde_json::from_str(r#"{"a":[1.5,1e300,0.1,null,{"b":"\u2028"}]}"#).unwrap(),
                1_000,
            )
            .ok(),
            contexts: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn decoding_restores_the_encoded_message(content: String, micros in -1_000_000_000_000_000_i64..=4_000_000_000_000_000) {
            let message = message(content, micros);
            let decoded = decode(encode(&message)).unwrap();
            prop_assert_eq!(&decoded, &EncodedMessage::encode(&message));
            prop_assert_eq!(decoded.decode(), Some(proto::Message::from(message)));
        }

        #[test]
        fn any_bytes_are_decoded_or_rejected(bytes: Vec<u8>) {
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn a_message_is_selected_like_its_entry() {
        let message = message("text".to_owned(), 0);
        let decoded = decode(encode(&message)).unwrap();
        let (item, expected) = (decoded.item(), crate::recent::item(&message));
        assert_eq!(item.results, expected.results);
        assert_eq!((item.tokens, item.bytes), (9, message.size()));
        assert_eq!(decoded.is_grouped(), message.is_grouped());
    }

    #[test]
    fn truncated_entries_are_rejected() {
        let entry = encode(&message("text".to_owned(), 0));
        for length in 0..entry.len() {
            assert_eq!(decode(entry.slice(..length)), None, "{length}");
        }
    }
}
