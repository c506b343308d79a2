use std::borrow::Cow;

use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::domain::{
    AuthorName, Content, ConversationId, Message, MessageId, Metadata, Part, Role,
};

/// Versions of the format. They differ where a sidecar that knows only the first would misread a
/// message: it rejects messages with parts, and reads plain ones.
const PLAIN: u32 = 1;
const WITH_PARTS: u32 = 2;

/// Message as it is stored in a window. The format is JSON, so that an operator
/// can read it.
#[derive(Serialize, Deserialize)]
struct WindowMessage<'a> {
    v: u32,
    seq: i64,
    id: &'a str,
    role: &'a str,
    /// Unix time in microseconds.
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_used: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Cow<'a, Metadata>>,
    content: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parts: Option<Cow<'a, [Part]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_count: Option<i32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    redacted: bool,
}

/// Encodes a message without its contexts. `None` if that fails.
pub(super) fn encode(message: &Message) -> Option<Bytes> {
    let stored = WindowMessage {
        v: if message.parts.is_empty() {
            PLAIN
        } else {
            WITH_PARTS
        },
        seq: message.seq,
        id: &message.id.to_string(),
        role: message.role.as_str(),
        created_at: message.created_at.timestamp_micros(),
        tokens_used: message.tokens_used,
        latency_ms: message.latency_ms,
        metadata: message.metadata.as_ref().map(Cow::Borrowed),
        content: message.content.as_str().into(),
        name: message.name.as_ref().map(|name| name.as_str().into()),
        parts: (!message.parts.is_empty()).then(|| message.parts.as_slice().into()),
        token_count: message.token_count,
        pinned: message.pinned,
        redacted: message.redacted,
    };
    serde_json::to_vec(&stored).ok().map(Bytes::from)
}

/// Decodes a message. `None` if it is invalid or of another version.
pub(super) fn decode(conversation_id: ConversationId, json: &[u8]) -> Option<Message> {
    let stored: WindowMessage<'_> = serde_json::from_slice(json).ok()?;
    if !(PLAIN..=WITH_PARTS).contains(&stored.v) {
        return None;
    }
    Some(Message {
        id: MessageId::parse(stored.id).ok()?,
        conversation_id,
        seq: stored.seq,
        role: Role::parse(stored.role).ok()?,
        name: match stored.name {
            Some(name) => Some(AuthorName::parse(name).ok()?),
            None => None,
        },
        content: Content::from_stored(stored.content.into_owned()),
        parts: stored.parts.map(Cow::into_owned).unwrap_or_default(),
        token_count: stored.token_count,
        pinned: stored.pinned,
        redacted: stored.redacted,
        tokens_used: stored.tokens_used,
        latency_ms: stored.latency_ms,
        created_at: DateTime::from_timestamp_micros(stored.created_at)?,
        metadata: stored.metadata.map(Cow::into_owned),
        contexts: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn message(content: String, micros: i64) -> Message {
        Message {
            id: MessageId::from_uuid(Uuid::from_u128(7)),
            conversation_id: ConversationId::from_uuid(Uuid::from_u128(8)),
            seq: 9_007_199_254_740_993,
            role: Role::Tool,
            name: AuthorName::parse("ann").ok(),
            content: Content::from_stored(content),
            parts: vec![Part::ToolCallResponse {
                id: "call_1".to_owned(),
                bytes: 3,
            }],
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
            let json = encode(&message).unwrap();
            prop_assert_eq!(decode(message.conversation_id, &json), Some(message));
        }
    }

    #[test]
    fn rejects_invalid_messages_and_other_versions() {
        let message = message("text".to_owned(), 0);
        let json = String::from_utf8(encode(&message).unwrap().to_vec()).unwrap();
        for bad in [
            String::new(),
            "null".to_owned(),
            json.replace(r#""v":2"#, r#""v":3"#),
            json.replace("tool", "robot"),
            json.replace(r#""content""#, r#""text""#),
            json[..json.len() - 1].to_owned(),
        ] {
            assert!(
                decode(message.conversation_id, bad.as_bytes()).is_none(),
                "{bad}"
            );
        }
        assert!(decode(message.conversation_id, &[0xff, 0xfe]).is_none());
    }
}
