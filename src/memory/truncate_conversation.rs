use super::{Error, Memory};
use crate::{
    domain::{ConversationRef, Digest, RequestId},
    store::{Invalidation, RequestIdentity, Truncated, Truncation},
};

/// Removal of the messages after a given one.
#[derive(Clone, Debug)]
pub struct TruncateConversation {
    /// Conversation to truncate.
    pub conversation: ConversationRef,
    /// Number of the last message that is kept; 0 removes all.
    pub after_seq: i64,
    /// Number that the conversation must end at; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Idempotency key.
    pub request_id: Option<RequestId>,
}

impl Memory {
    /// Removes the messages after a given one, permanently.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::save_messages`] does.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn truncate_conversation(
        &self,
        request: TruncateConversation,
    ) -> Result<Truncated, Error> {
        let mut truncation = Truncation {
            request: request.request_id.map(|id| RequestIdentity {
                id,
                digest: Digest::of_truncation(request.after_seq),
            }),
            conversation: request.conversation,
            after_seq: request.after_seq,
            expected_last_seq: request.expected_last_seq,
            invalidation: Invalidation::Never,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move {
            let conversation = truncation.conversation.clone();
            let id = conversation.id;
            let is_repeatable = truncation.request.is_some();
            let write = async |invalidation| {
                truncation.invalidation = invalidation;
                memory.0.store.truncate(&truncation).await
            };
            memory
                .retire_through(&conversation, write)
                .await
                .map_err(|error| Error::from_write(error, id, is_repeatable))
        })
        .await
    }
}
