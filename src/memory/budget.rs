use crate::domain::Message;

/// How many messages are read at first, before it is known how large they are.
const FIRST: u32 = 32;
/// How many are read at once at most.
const MOST: u32 = 256;

/// Keeps an answer within [`Message::MAX_BYTES_PER_ANSWER`], and what is read
/// from the store for it in proportion.
#[derive(Debug, Default)]
pub(super) struct Budget {
    messages: usize,
    bytes: usize,
}

impl Budget {
    /// How many messages to read next, of so many that are missing: as many as
    /// fit if they are like those before.
    pub(super) fn next_read(&self, missing: u32) -> u32 {
        let fit = match self.bytes.checked_div(self.messages) {
            None => FIRST,
            Some(average) => {
                let left = Message::MAX_BYTES_PER_ANSWER.saturating_sub(self.bytes);
                u32::try_from(left / average.max(1) + 1).unwrap_or(MOST)
            }
        };
        missing.min(fit.min(MOST))
    }

    /// Takes a message in, if it fits. The first one always does.
    pub(super) fn admits(&mut self, message: &Message) -> bool {
        let bytes = self.bytes + message.size();
        let fits = bytes <= Message::MAX_BYTES_PER_ANSWER || self.messages == 0;
        if fits {
            self.bytes = bytes;
            self.messages += 1;
        }
        fits
    }
}
