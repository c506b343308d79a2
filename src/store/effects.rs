//! Effects of a removal on the conversations that contained the messages.

use uuid::Uuid;

use crate::domain::Title;

/// Effect of the removal of messages, or of their texts, on a conversation that contained them.
#[derive(Debug)]
pub(super) struct RemovalEffect {
    pub(super) conversation: Uuid,
    /// A summary that stands for a message after this number is removed.
    pub(super) after_seq: i64,
    /// Tokens of the removed messages.
    pub(super) tokens: i64,
    /// Whether the title was derived from a removed message.
    pub(super) clears_title: bool,
}

/// Whether a title can have been derived from the text of a message. Used for titles of which the
/// message is not recorded: those of imports and of earlier versions.
pub(super) fn is_derived(title: &str, text: &str) -> bool {
    Title::from_content(text).is_some_and(|derived| derived.as_str() == title)
}
