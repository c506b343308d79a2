//! What the sidecar has of a conversation.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use uuid::Uuid;

use crate::{
    commands::Failure,
    domain::Message,
    proto::{self, part::Kind},
};

/// Conversation as the sidecar has stored it.
pub(super) struct StoredConversation {
    pub(super) last_seq: i64,
    /// All messages that it contains, in order.
    pub(super) messages: Vec<StoredMessage>,
}

/// Message as the sidecar has stored it.
#[derive(Clone, Copy)]
pub(super) struct StoredMessage {
    pub(super) seq: i64,
    pub(super) id: Uuid,
    /// Hash of its content; `None` if it was redacted.
    content: Option<u64>,
}

impl StoredMessage {
    pub(super) fn new(message: proto::Message) -> Result<Self, Failure> {
        Ok(Self {
            seq: message.seq,
            id: message.id.parse()?,
            content: (!message.redacted).then(|| hash(message)),
        })
    }

    pub(super) fn is(&self, message: &Message) -> bool {
        self.id == message.id.as_uuid()
    }

    /// Whether the message of the file with the same id has other content.
    pub(super) fn differs_from(&self, message: &Message) -> bool {
        self.content
            .is_some_and(|content| content != hash(message.clone().into()))
    }
}

/// Hash of author and content, with the sizes of blobs instead of their data.
fn hash(message: proto::Message) -> u64 {
    let mut parts = message.parts;
    for part in &mut parts {
        if let Some(Kind::Blob(blob)) = &mut part.kind {
            blob.data.clear();
        }
    }
    let compared = proto::Message {
        role: message.role,
        name: message.name,
        content: message.content,
        parts,
        ..proto::Message::default()
    };
    let mut hasher = DefaultHasher::new();
    prost::Message::encode_to_vec(&compared).hash(&mut hasher);
    hasher.finish()
}
