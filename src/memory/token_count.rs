use super::Memory;
use crate::domain::{NewMessage, Part};

/// Tokens that separate a message from the next one in a model's input.
const TOKENS_PER_MESSAGE: u32 = 4;
/// Tokens that are assumed for an image or another part that is no text.
const TOKENS_PER_MEDIUM: u32 = 1_000;

impl Memory {
    /// Counts the tokens of a message in a model's input, unless its caller has done so.
    pub(super) fn count_tokens(&self, message: &mut NewMessage) {
        if message.token_count.is_some() {
            return;
        }
        let mut count = TOKENS_PER_MESSAGE + self.tokens_of(message.content.as_str());
        for part in &message.parts {
            count = count.saturating_add(match part {
                Part::Text { .. } | Part::ToolCallResponse { .. } => 0,
                Part::Reasoning { content } => self.tokens_of(content),
                Part::ToolCall {
                    name, arguments, ..
                } => self.tokens_of(name) + self.tokens_of(arguments),
                Part::Blob(_) | Part::Uri { .. } | Part::File { .. } => TOKENS_PER_MEDIUM,
                Part::Generic { json, .. } => self.tokens_of(json),
            });
        }
        message.token_count = Some(i32::try_from(count).unwrap_or(i32::MAX));
    }

    fn tokens_of(&self, text: &str) -> u32 {
        u32::try_from(text.len().div_ceil(4)).unwrap_or(u32::MAX)
    }
}
