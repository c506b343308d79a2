use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationId, ConversationRef, Title},
    store::{Branch, ConversationPage},
};

/// Branch to be created: a conversation that shares the first messages of another one.
#[derive(Clone, Debug)]
pub struct BranchConversation {
    /// Conversation to branch from.
    pub parent: ConversationRef,
    /// Number of the last message that the branch shares with its parent, 1 or more.
    pub at_seq: i64,
    /// Title; `None` uses that of the parent.
    pub title: Option<Title>,
    /// Id of the branch; `None` generates one.
    pub id: Option<ConversationId>,
}

/// Page of a conversation's branches.
#[derive(Clone, Debug)]
pub struct ListBranches {
    /// Conversation whose branches are listed.
    pub conversation: ConversationRef,
    /// Value of [`ConversationPage::next`] of the previous page; `None` for the first page.
    pub after: Option<i64>,
    /// Upper bound on the branches of the page.
    pub limit: u32,
}

impl Memory {
    /// Creates a conversation that shares the first messages of another one.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such parent, with [`Error::BeyondEnd`] if it
    /// has no message `at_seq`, or with an error of the write. After [`Error::OutcomeUnknown`] a
    /// retry without a chosen id may create a second branch.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn branch_conversation(
        &self,
        request: BranchConversation,
    ) -> Result<Conversation, Error> {
        let branch = Branch {
            parent: request.parent,
            at_seq: request.at_seq,
            id: request
                .id
                .unwrap_or_else(|| ConversationId::from_uuid(self.new_id())),
            title: request.title,
            at: self.0.clock.now(),
        };
        let id_chosen = request.id.is_some();
        let memory = self.clone();
        self.uninterrupted(async move {
            let branched = memory.0.store.branch(&branch).await;
            // Without a chosen id, a retry may create a second branch.
            branched.map_err(|error| Error::from_write(error, branch.parent.id, id_chosen))
        })
        .await
    }

    /// Lists a page of the conversations that branched from this one, latest activity
    /// first.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with [`Error::Unavailable`]
    /// if the store cannot be reached.
    pub async fn list_branches(&self, request: ListBranches) -> Result<ConversationPage, Error> {
        let ListBranches {
            conversation,
            after,
            limit,
        } = request;
        let _permit = self.read_permit().await?;
        let page = self.0.store.branches(&conversation, after, limit).await;
        page.map_err(|error| Error::from_store(error, conversation.id))
    }
}
