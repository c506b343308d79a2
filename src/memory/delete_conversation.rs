use super::{Error, Memory};
use crate::{domain::ConversationRef, store::REMOVAL_LIMIT};

impl Memory {
    /// Deletes a conversation and all its messages, for good.
    pub async fn delete_conversation(&self, conversation: ConversationRef) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let announced = memory
                .0
                .recent
                .announce(conversation.id, REMOVAL_LIMIT)
                .await;
            match memory.0.store.delete(&conversation).await {
                Ok(()) => {
                    memory.0.recent.retire(announced).await;
                    Ok(())
                }
                Err(error) => {
                    memory.0.recent.settle(announced, &error).await;
                    // Repeated, it finds the conversation or finds it gone.
                    Err(Error::of_write(error, conversation.id, true))
                }
            }
        })
        .await
    }
}
