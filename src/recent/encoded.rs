//! Messages of windows in the encoding of the API.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;

use crate::{
    domain::{HistoryItem, Message, MessageId, Part, Role},
    proto,
};

/// Message in the encoding of the API, without contexts and the data of blobs, with the properties
/// that determine which histories contain it. A response is assembled from such messages without
/// decoding them.
#[derive(Clone, PartialEq)]
pub struct EncodedMessage {
    /// Id.
    pub id: MessageId,
    /// Number in the conversation; 0 for the summary of a compaction.
    pub seq: i64,
    /// Author of the message.
    pub role: Role,
    /// Tokens in a model's input.
    pub tokens: u64,
    /// Size in a response, in bytes of [`Message::size`].
    pub size: usize,
    /// Whether every history includes the message.
    pub pinned: bool,
    /// Ids of the tool calls that the message contains.
    pub calls: Vec<String>,
    /// Ids of the tool calls whose results the message contains.
    pub results: Vec<String>,
    /// Whether the message contains reasoning and nothing else.
    pub has_only_reasoning: bool,
    /// Whether a part is a blob.
    pub has_blobs: bool,
    /// Encoding of the message.
    pub bytes: Bytes,
}

impl EncodedMessage {
    /// Encodes a message without its contexts and the data of blobs.
    pub fn encode(message: &Message) -> Self {
        let item = item(message);
        let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let mut stored = message.clone();
        stored.contexts.clear();
        for blob in stored.parts.iter_mut().filter_map(Part::as_blob_mut) {
            blob.data = None;
        }
        Self {
            id: message.id,
            seq: message.seq,
            role: message.role,
            tokens: item.tokens,
            size: item.bytes,
            pinned: message.pinned,
            calls: owned(&item.calls),
            results: owned(&item.results),
            has_only_reasoning: item.has_only_reasoning,
            has_blobs: message.has_blobs(),
            bytes: proto::Message::from(stored).encode_to_vec().into(),
        }
    }

    /// Decodes the message. `None` if the encoding is invalid.
    pub fn decode(&self) -> Option<proto::Message> {
        proto::Message::decode(self.bytes.clone()).ok()
    }

    /// Properties that determine whether a history contains the message.
    pub fn item(&self) -> HistoryItem<'_> {
        HistoryItem {
            role: self.role,
            calls: self.calls.iter().map(String::as_str).collect(),
            results: self.results.iter().map(String::as_str).collect(),
            has_only_reasoning: self.has_only_reasoning,
            tokens: self.tokens,
            bytes: self.size,
        }
    }

    /// Whether the message may not be valid in a history by itself, as [`Message::is_grouped`].
    pub fn is_grouped(&self) -> bool {
        self.role == Role::Tool
            || self.has_only_reasoning
            || !self.calls.is_empty()
            || !self.results.is_empty()
    }

    /// Sizes of the blobs in bytes, with the positions of their parts.
    pub fn blob_sizes(&self) -> Vec<(u32, usize)> {
        if !self.has_blobs {
            return Vec::new();
        }
        let parts = self.decode().map(|message| message.parts);
        let parts = (0..).zip(parts.unwrap_or_default());
        let blobs = parts.filter_map(|(position, part)| match part.kind? {
            proto::part::Kind::Blob(blob) => {
                Some((position, usize::try_from(blob.size_bytes).ok()?))
            }
            _ => None,
        });
        blobs.collect()
    }

    /// Adds the data of a blob.
    pub fn attach_blob(&mut self, position: u32, data: Bytes) {
        let Some(mut message) = self.decode() else {
            return;
        };
        let part = message.parts.get_mut(position as usize);
        if let Some(proto::part::Kind::Blob(blob)) = part.and_then(|part| part.kind.as_mut()) {
            blob.data = data;
            self.bytes = message.encode_to_vec().into();
        }
    }
}

/// Returns the properties of a message that determine whether a history contains it.
pub fn item(message: &Message) -> HistoryItem<'_> {
    let mut item = HistoryItem::plain(message.role, message.tokens(), message.size());
    if message.parts.is_empty() {
        return item;
    }
    item.has_only_reasoning = true;
    for part in &message.parts {
        match part {
            Part::ToolCall { id, .. } => item.calls.push(id),
            Part::ToolCallResponse { id, .. } => item.results.push(id),
            Part::Reasoning { .. } => continue,
            _ => {}
        }
        item.has_only_reasoning = false;
    }
    item
}

impl fmt::Debug for EncodedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedMessage")
            .field("id", &self.id)
            .field("seq", &self.seq)
            .field("role", &self.role)
            .field("bytes.len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
