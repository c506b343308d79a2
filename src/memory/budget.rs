use crate::domain::Message;

/// Number of messages in the first read, when their size is not known yet.
const FIRST_READ: u32 = 32;
/// Upper bound on the messages of a read. It is at most twice the number of messages before it,
/// since those that follow may be larger.
const MAX_READ: u32 = 128;

/// Limits the messages of a response to [`Message::MAX_BYTES_PER_RESPONSE`], and the reads from
/// the store to a proportionate size.
#[derive(Debug, Default)]
pub(super) struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    /// Number of messages to read next when `missing` are still requested: as many as fit
    /// if they are of the average size of those before.
    pub(super) fn next_read(&self, missing: u32) -> u32 {
        let fitting = match self.bytes.checked_div(self.messages) {
            None => FIRST_READ,
            Some(average) => {
                let left = Message::MAX_BYTES_PER_RESPONSE.saturating_sub(self.bytes);
                u32::try_from(left / average.max(1) + 1).unwrap_or(MAX_READ)
            }
        };
        let before = u32::try_from(self.messages).unwrap_or(MAX_READ);
        let max = MAX_READ.min(FIRST_READ.max(before.saturating_mul(2)));
        missing.min(fitting.min(max))
    }

    /// Counts messages, whether they fit or not.
    pub(super) fn add(&mut self, messages: &[Message]) {
        self.messages += messages.len();
        self.bytes += messages.iter().map(Message::footprint).sum::<usize>();
    }

    /// Whether no further message fits.
    pub(super) fn is_exhausted(&self) -> bool {
        self.bytes > Message::MAX_BYTES_PER_RESPONSE
    }

    /// Counts a message and returns true if it fits. The first message always fits.
    pub(super) fn admits(&mut self, message: &Message) -> bool {
        self.admits_bytes(message.footprint())
    }

    /// Counts a message of a size, as [`Self::admits`] does.
    pub(super) fn admits_bytes(&mut self, bytes: usize) -> bool {
        let bytes = self.bytes + bytes;
        let fits = bytes <= Message::MAX_BYTES_PER_RESPONSE || self.messages == 0;
        if fits {
            self.bytes = bytes;
            self.messages += 1;
        }
        fits
    }
}
