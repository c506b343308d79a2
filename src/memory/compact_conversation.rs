use super::{Error, Memory};
use crate::{
    domain::{Content, ConversationRef, Digest, MessageId, RequestId},
    store::{Compaction, Invalidation, RequestIdentity},
};

/// Replacement of a conversation's first messages in histories by a summary.
#[derive(Clone, Debug)]
pub struct CompactConversation {
    /// Conversation to compact.
    pub conversation: ConversationRef,
    /// Number of the last message that the summary stands for; 0 removes the summary.
    pub upto_seq: i64,
    /// Summary; empty only if `upto_seq` is 0.
    pub summary: Content,
    /// Tokens of the summary; `None` counts them.
    pub token_count: Option<i32>,
    /// Number that the conversation must end at; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Idempotency key.
    pub request_id: Option<RequestId>,
}

impl Memory {
    /// Replaces the first messages of a conversation in histories by a summary, or removes the
    /// summary. Returns the last number of the conversation.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::save_messages`] does, and with [`Error::BeyondEnd`] if the conversation
    /// ends before `upto_seq`.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn compact_conversation(&self, request: CompactConversation) -> Result<i64, Error> {
        let token_count = match request.token_count {
            Some(count) => count,
            None => self.count_text_tokens(&request.summary).await?,
        };
        let mut compaction = Compaction {
            request: request.request_id.map(|id| RequestIdentity {
                id,
                digest: Digest::of_compaction(request.upto_seq, request.summary.as_str()),
            }),
            token_count,
            summary_id: MessageId::from_uuid(self.new_id()),
            conversation: request.conversation,
            upto_seq: request.upto_seq,
            summary: request.summary,
            expected_last_seq: request.expected_last_seq,
            invalidation: Invalidation::Never,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move {
            let conversation = compaction.conversation.clone();
            let id = conversation.id;
            let is_repeatable = compaction.request.is_some();
            let write = async |invalidation| {
                compaction.invalidation = invalidation;
                memory.0.store.compact(&compaction).await
            };
            memory
                .retire_through(&conversation, write)
                .await
                // Without an idempotency key, a retry could replace a later compaction.
                .map_err(|error| Error::from_write(error, id, is_repeatable))
        })
        .await
    }
}
