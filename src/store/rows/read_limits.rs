//! Limits on the memory of a read.

use crate::domain::{Message, RetrievedContext};

/// Upper bound on the messages of a read, and on its pinned messages, in bytes of
/// [`Message::footprint`]. One message is read whatever its size.
const MAX_BYTES: usize = 2 * Message::MAX_BYTES_PER_RESPONSE;

/// Numbers of messages to read. They shrink while the messages that were read exceed
/// [`MAX_BYTES`]: the statements cannot limit bytes, and their rows have no order.
#[derive(Debug)]
pub(in crate::store) struct ReadLimits {
    messages: RowLimit,
    pinned: RowLimit,
}

/// Number of rows of a kind, and what was counted in the current attempt.
#[derive(Debug)]
pub(in crate::store) struct RowLimit {
    limit: u32,
    rows: u32,
    bytes: usize,
    is_exceeded: bool,
}

impl ReadLimits {
    /// Begins a read of at most so many messages, besides pinned ones.
    pub(in crate::store) fn new(messages: u32, pinned: u32) -> Self {
        Self {
            messages: RowLimit::new(messages),
            pinned: RowLimit::new(pinned),
        }
    }

    /// Number of messages to read in the next attempt.
    pub(in crate::store) fn messages(&self) -> u32 {
        self.messages.limit
    }

    /// Number of pinned messages to read in the next attempt.
    pub(in crate::store) fn pinned(&self) -> u32 {
        self.pinned.limit
    }

    /// Counts a message, which is pinned if its number is negative.
    pub(in crate::store) fn count(&mut self, message: &Message) {
        let kind = if message.seq < 0 {
            &mut self.pinned
        } else {
            &mut self.messages
        };
        kind.rows += 1;
        kind.add(message.footprint());
    }

    /// Limit that the contexts of messages count towards.
    pub(in crate::store) fn of_messages(&mut self) -> &mut RowLimit {
        &mut self.messages
    }

    /// Limit that the contexts of pinned messages count towards.
    pub(in crate::store) fn of_pinned(&mut self) -> &mut RowLimit {
        &mut self.pinned
    }

    /// Whether further rows of this attempt are not kept.
    pub(in crate::store) fn is_exceeded(&self) -> bool {
        self.messages.is_exceeded || self.pinned.is_exceeded
    }

    /// Ends an attempt. Returns whether it must be repeated with the smaller numbers that this
    /// sets.
    pub(in crate::store) fn shrink(&mut self) -> bool {
        let is_exceeded = self.is_exceeded();
        self.messages.shrink();
        self.pinned.shrink();
        is_exceeded
    }
}

impl RowLimit {
    fn new(limit: u32) -> Self {
        Self {
            limit,
            rows: 0,
            bytes: 0,
            is_exceeded: false,
        }
    }

    /// Limit of a read whose messages were saved by one request, which has its own limits.
    pub(in crate::store) fn of_request() -> Self {
        Self::new(1)
    }

    /// Adds the size of a context to the bytes that have been read.
    pub(in crate::store) fn count_context(&mut self, context: &RetrievedContext) {
        self.add(context.footprint());
    }

    /// Whether further rows of this attempt are not kept.
    pub(in crate::store) fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.is_exceeded = self.bytes > MAX_BYTES && self.limit > 1;
    }

    fn shrink(&mut self) {
        if self.is_exceeded {
            // The rows are those of several ranges, each up to the limit.
            self.limit = (self.rows / 2).clamp(1, self.limit / 2);
        }
        *self = Self::new(self.limit);
    }
}
