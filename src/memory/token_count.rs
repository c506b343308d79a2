use tokio::task::spawn_blocking;

use super::{Error, Memory};
use crate::{
    domain::{Content, NewMessage, Part},
    tokens::TokenEncoding,
};

/// Tokens that separate a message from the next one in a model's input.
const TOKENS_PER_MESSAGE: u32 = 4;
/// Tokens that are assumed for an image or another part that is no text.
const TOKENS_PER_MEDIUM: u32 = 1_000;
/// Prefix of the types of parts that contain details of a framework.
const DETAILS_PREFIX: &str = "delta:";
/// Size of the messages from which on counting takes so long that it would delay other calls on
/// the same thread. Some texts take a microsecond per byte.
const MAX_INLINE_BYTES: usize = 16 << 10;

impl Memory {
    /// Counts the tokens of messages in a model's input, except where the caller has done so.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Internal`] if counting panics.
    pub(super) async fn count_tokens(
        &self,
        mut messages: Vec<NewMessage>,
    ) -> Result<Vec<NewMessage>, Error> {
        let encoding = self.0.token_encoding;
        let uncounted = messages.iter().filter(|m| m.token_count.is_none());
        let bytes: usize = uncounted.map(NewMessage::size).sum();
        if bytes == 0 || is_quick(encoding, bytes) {
            count_all(encoding, &mut messages);
            return Ok(messages);
        }
        blocking(move || {
            count_all(encoding, &mut messages);
            messages
        })
        .await
    }

    /// Counts the tokens of a plain message with this text.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Internal`] if counting panics.
    pub(super) async fn count_text_tokens(&self, text: &Content) -> Result<i32, Error> {
        let encoding = self.0.token_encoding;
        let count = if is_quick(encoding, text.as_str().len()) {
            encoding.count(text.as_str())
        } else {
            let text = text.clone();
            blocking(move || encoding.count(text.as_str())).await?
        };
        Ok(i32::try_from(count.saturating_add(TOKENS_PER_MESSAGE)).unwrap_or(i32::MAX))
    }
}

/// Whether a text of this size can be counted on a thread that serves calls.
fn is_quick(encoding: TokenEncoding, bytes: usize) -> bool {
    let is_short = encoding.is_loaded() && bytes <= MAX_INLINE_BYTES;
    is_short || encoding == TokenEncoding::None
}

async fn blocking<T: Send + 'static>(
    count: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let counted = spawn_blocking(count).await;
    // The panic's own text may quote a message. The log has its location.
    counted.map_err(|_| Error::Internal("counting tokens panicked".into()))
}

fn count_all(encoding: TokenEncoding, messages: &mut [NewMessage]) {
    for message in messages {
        if message.token_count.is_none() {
            let count = count_message(encoding, message);
            message.token_count = Some(i32::try_from(count).unwrap_or(i32::MAX));
        }
    }
}

fn count_message(encoding: TokenEncoding, message: &NewMessage) -> u32 {
    let mut count = TOKENS_PER_MESSAGE + encoding.count(message.content.as_str());
    for part in &message.parts {
        count = count.saturating_add(match part {
            Part::Text { .. } | Part::ToolCallResponse { .. } => 0,
            Part::Reasoning { content } => encoding.count(content),
            Part::ToolCall {
                name, arguments, ..
            } => encoding.count(name) + encoding.count(arguments),
            Part::Blob(_) | Part::Uri { .. } | Part::File { .. } => TOKENS_PER_MEDIUM,
            // Details of a framework are no part of a model's input.
            Part::Generic { generic_type, .. } if generic_type.starts_with(DETAILS_PREFIX) => 0,
            Part::Generic { json, .. } => encoding.count(json),
        });
    }
    count
}

#[cfg(test)]
mod tests;
