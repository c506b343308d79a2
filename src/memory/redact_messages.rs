use super::{Error, Memory};
use crate::{
    domain::{ConversationRef, Message},
    store::{REMOVAL_LIMIT, Redaction},
};

/// Removal of the texts of single messages.
#[derive(Clone, Debug)]
pub struct RedactMessages {
    /// Conversation that contains the messages.
    pub conversation: ConversationRef,
    /// Numbers of the messages.
    pub seqs: Vec<i64>,
}

impl Memory {
    /// Upper bound on the messages of one redaction.
    pub const MAX_REDACTED: usize = 100;

    /// Removes the texts of messages permanently, in all conversations that contain them. Returns
    /// the messages as they are afterwards, in ascending order.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::delete_conversation`] does; with [`Error::NotFound`] also if the
    /// conversation does not contain one of the messages, and then nothing is redacted.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn redact_messages(&self, request: RedactMessages) -> Result<Vec<Message>, Error> {
        let RedactMessages { conversation, seqs } = request;
        let memory = self.clone();
        self.uninterrupted(async move {
            let store = &memory.0.store;
            let id = conversation.id;
            let failed = |error| Error::from_store(error, id);
            let containing = store.containing(&conversation, &seqs);
            let containing = containing.await.map_err(failed)?;
            let write = async |announced, invalidation| {
                let redaction = Redaction {
                    conversation,
                    seqs,
                    announced,
                    invalidation,
                };
                store.redact(&redaction).await
            };
            let redacted = memory
                .remove_through(containing, REMOVAL_LIMIT, write, |redacted| {
                    &redacted.conversations
                })
                .await
                .map_err(failed)?;
            Ok(redacted.messages)
        })
        .await
    }
}
