use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationId, ConversationRef, DeptId, UserId},
    store::{Invalidation, OwnerChange, REMOVAL_LIMIT},
};

/// Transfer of a conversation and its family to another user.
#[derive(Clone, Debug)]
pub struct TransferConversation {
    /// Conversation, with the owner that it must have unless it was transferred before.
    pub conversation: ConversationRef,
    /// User to whom the conversation is transferred.
    pub owner: UserId,
    /// Department of the new owner; `None` keeps those of the conversations.
    pub dept_id: Option<DeptId>,
}

impl Memory {
    /// Transfers a conversation, and all that share messages with it, to another user. Returns the
    /// conversation and the ids of all transferred ones.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::delete_conversation`] does; with [`Error::FamilyTooLarge`] if the family is
    /// too large, and then nothing is transferred.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn transfer_conversation(
        &self,
        request: TransferConversation,
    ) -> Result<(Conversation, Vec<ConversationId>), Error> {
        let TransferConversation {
            conversation,
            owner,
            dept_id,
        } = request;
        let memory = self.clone();
        self.uninterrupted(async move {
            let store = &memory.0.store;
            let id = conversation.id;
            let failed = |error| Error::from_store(error, id);
            let transferred = ConversationRef {
                id,
                user_id: Some(owner.clone()),
            };
            let mut change = OwnerChange {
                conversation,
                owner,
                dept_id,
                announced: Vec::new(),
                invalidation: Invalidation::Never,
            };
            let family = store.family(&change).await.map_err(failed)?;
            let write = async |announced, invalidation| {
                change.announced = announced;
                change.invalidation = invalidation;
                store.change_owner(&change).await
            };
            let conversations = memory
                .remove_through(family, REMOVAL_LIMIT, write, |changed| changed)
                .await
                .map_err(failed)?;
            let conversation = store.get(&transferred).await.map_err(failed)?;
            Ok((conversation, conversations))
        })
        .await
    }
}
