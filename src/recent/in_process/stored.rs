//! Content of a window in the process.

use std::collections::VecDeque;

use super::table::Found;
use crate::{
    domain::{Message, UserId},
    recent::{EncodedMessage, Window},
};

/// Bytes that count for a message besides its encoding.
const MESSAGE_BYTES: usize = 256;

/// Content of a window.
pub(super) struct Stored {
    pub(super) owner: UserId,
    pub(super) last_seq: i64,
    pinned: Vec<EncodedMessage>,
    summary: Option<EncodedMessage>,
    compacted_upto_seq: i64,
    uncompacted_tokens: i64,
    messages: VecDeque<EncodedMessage>,
    is_complete: bool,
    /// Whether some messages are not always valid in a history by themselves.
    is_grouped: bool,
    /// Size of all messages.
    pub(super) bytes: usize,
}

/// Committed messages to add to a window.
pub(super) struct Publication {
    pub(super) owner: UserId,
    /// Number of the first committed message, which can be before those in `messages`.
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) uncompacted_tokens: i64,
    /// The newest committed messages, as many as a window may have.
    pub(super) messages: Vec<EncodedMessage>,
}

impl Stored {
    /// Encodes the newest messages of a window from the store.
    pub(super) fn of(window: &Window<Message>, capacity: usize) -> Self {
        let messages = &window.messages[window.messages.len().saturating_sub(capacity)..];
        let mut stored = Self {
            last_seq: window.last_seq,
            pinned: window.pinned.iter().map(EncodedMessage::encode).collect(),
            summary: window.summary.as_ref().map(EncodedMessage::encode),
            compacted_upto_seq: window.compacted_upto_seq,
            uncompacted_tokens: window.uncompacted_tokens,
            messages: messages.iter().map(EncodedMessage::encode).collect(),
            is_grouped: messages.iter().any(Message::is_grouped),
            ..Self::empty(
                &window.owner,
                window.is_complete && messages.len() == window.messages.len(),
            )
        };
        let head = stored.pinned.iter().chain(&stored.summary);
        stored.bytes = head.chain(&stored.messages).map(message_bytes).sum();
        stored
    }

    pub(super) fn empty(owner: &UserId, is_complete: bool) -> Self {
        Self {
            owner: owner.clone(),
            last_seq: 0,
            pinned: Vec::new(),
            summary: None,
            compacted_upto_seq: 0,
            uncompacted_tokens: 0,
            messages: VecDeque::new(),
            is_complete,
            is_grouped: false,
            bytes: 0,
        }
    }

    /// Adds messages, and removes the oldest ones beyond the capacity.
    pub(super) fn append(&mut self, publication: Publication, capacity: usize) {
        let oldest = publication.messages.first();
        if oldest.is_some_and(|oldest| oldest.seq > publication.first_seq) {
            self.is_complete = false;
        }
        self.last_seq = publication.last_seq;
        self.owner = publication.owner;
        self.uncompacted_tokens = publication.uncompacted_tokens;
        for message in publication.messages {
            self.bytes += message_bytes(&message);
            self.is_grouped |= message.is_grouped();
            self.messages.push_back(message);
        }
        while self.messages.len() > capacity
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= message_bytes(&oldest);
            self.is_complete = false;
        }
    }

    /// Whether the window has the last of the messages, and not another one under its number.
    pub(super) fn has_last_of(&self, publication: &Publication) -> bool {
        let Some(last) = publication.messages.last() else {
            return false;
        };
        let known = self.messages.iter().rev().find(|it| it.seq == last.seq);
        known.is_some_and(|known| known.id == last.id)
    }

    pub(super) fn newest(&self, limit: usize) -> Found {
        if self.messages.len() < limit && !self.is_complete {
            return Found::Short;
        }
        let omitted = if self.is_grouped {
            0
        } else {
            self.messages.len().saturating_sub(limit)
        };
        Found::Hit(Box::new(Window {
            owner: self.owner.clone(),
            last_seq: self.last_seq,
            pinned: self.pinned.clone(),
            summary: self.summary.clone(),
            compacted_upto_seq: self.compacted_upto_seq,
            uncompacted_tokens: self.uncompacted_tokens,
            messages: self.messages.range(omitted..).cloned().collect(),
            is_complete: self.is_complete && omitted == 0,
        }))
    }
}

fn message_bytes(message: &EncodedMessage) -> usize {
    MESSAGE_BYTES + message.bytes.len()
}
