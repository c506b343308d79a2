use super::{Error, Memory};
use crate::domain::ConversationRef;

impl Memory {
    /// Deletes a conversation with all its messages, permanently.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Overloaded`] and [`Error::Unavailable`] mean that nothing
    /// was deleted; after [`Error::OutcomeUnknown`] a retry is safe.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn delete_conversation(&self, conversation: ConversationRef) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let id = conversation.id;
            let store = &memory.0.store;
            let write = async |invalidation| store.delete(&conversation, invalidation).await;
            memory
                .retire_through(&conversation, write)
                .await
                // A retry is safe: it deletes the conversation, or returns that it does not
                // exist.
                .map_err(|error| Error::from_write(error, id, true))
        })
        .await
    }
}
