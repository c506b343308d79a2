use bytes::Bytes;
use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::domain::{Content, ConversationId, Message, MessageId, Metadata, Role};

/// Moves when the meaning of a field changes, so that sidecars of two versions
/// take each other's entries for garbage instead of misreading them.
const VERSION: u32 = 1;

/// A message as a window keeps it: JSON, so that an operator can read it.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    v: u32,
    seq: i64,
    id: &'a str,
    role: &'a str,
    /// In microseconds.
    created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_used: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<std::borrow::Cow<'a, Metadata>>,
    content: std::borrow::Cow<'a, str>,
}

/// Writes a message, without its contexts.
pub(super) fn encode(message: &Message) -> Option<Bytes> {
    let entry = Entry {
        v: VERSION,
        seq: message.seq,
        id: &message.id.to_string(),
        role: message.role.as_str(),
        created_at: message.created_at.timestamp_micros(),
        tokens_used: message.tokens_used,
        latency_ms: message.latency_ms,
        metadata: message.metadata.as_ref().map(std::borrow::Cow::Borrowed),
        content: message.content.as_str().into(),
    };
    serde_json::to_vec(&entry).ok().map(Bytes::from)
}

/// Reads a message. None when it is garbage or of another version.
pub(super) fn decode(conversation_id: ConversationId, json: &[u8]) -> Option<Message> {
    let entry: Entry<'_> = serde_json::from_slice(json).ok()?;
    if entry.v != VERSION {
        return None;
    }
    Some(Message {
        id: MessageId::parse(entry.id).ok()?,
        conversation_id,
        seq: entry.seq,
        role: Role::from_name(entry.role)?,
        content: Content::from_stored(entry.content.into_owned()),
        tokens_used: entry.tokens_used,
        latency_ms: entry.latency_ms,
        created_at: DateTime::from_timestamp_micros(entry.created_at)?,
        metadata: entry.metadata.map(std::borrow::Cow::into_owned),
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
            content: Content::from_stored(content),
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
        fn what_is_written_is_read(content: String, micros in -1_000_000_000_000_000_i64..=4_000_000_000_000_000) {
            let message = message(content, micros);
            let json = encode(&message).unwrap();
            prop_assert_eq!(decode(message.conversation_id, &json), Some(message));
        }
    }

    #[test]
    fn garbage_and_other_versions_are_no_messages() {
        let message = message("text".to_owned(), 0);
        let json = String::from_utf8(encode(&message).unwrap().to_vec()).unwrap();
        for bad in [
            String::new(),
            "null".to_owned(),
            json.replace(r#""v":1"#, r#""v":2"#),
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
