use super::{Error, Memory};
use crate::{
    domain::{ConversationRef, Digest, RequestId},
    store::{REMOVAL_LIMIT, Request, Truncated, Truncation},
};

/// A removal of the messages after a point.
#[derive(Clone, Debug)]
pub struct TruncateConversation {
    /// Where.
    pub conversation: ConversationRef,
    /// The last number that stays.
    pub after_seq: i64,
    /// Remove only if the conversation still ends here.
    pub expected_last_seq: Option<i64>,
    /// The idempotency key.
    pub request_id: Option<RequestId>,
}

impl Memory {
    /// Removes the messages after a point, for good.
    pub async fn truncate_conversation(
        &self,
        request: TruncateConversation,
    ) -> Result<Truncated, Error> {
        let truncation = Truncation {
            request: request.request_id.map(|id| Request {
                id,
                digest: Digest::of_truncation(request.after_seq),
            }),
            conversation: request.conversation,
            after_seq: request.after_seq,
            expected_last_seq: request.expected_last_seq,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move { memory.truncate(truncation).await })
            .await
    }

    async fn truncate(&self, truncation: Truncation) -> Result<Truncated, Error> {
        let id = truncation.conversation.id;
        let announced = self.0.recent.announce(id, REMOVAL_LIMIT).await;
        match self.0.store.truncate(&truncation).await {
            Ok(truncated) => {
                self.0.recent.retire(announced).await;
                Ok(truncated)
            }
            Err(error) => {
                self.0.recent.settle(announced, &error).await;
                Err(Error::of_write(error, id, truncation.request.is_some()))
            }
        }
    }
}
