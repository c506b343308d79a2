use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationId, ConversationRef, Title},
    store::{Branch, ConversationPage},
};

/// Another way to go on from a message.
#[derive(Clone, Debug)]
pub struct BranchConversation {
    /// Where it begins.
    pub parent: ConversationRef,
    /// The last number that it shares with its parent, 1 or more.
    pub at_seq: i64,
    /// What it is called; None for the parent's title.
    pub title: Option<Title>,
}

/// A page of a conversation's branches.
#[derive(Clone, Debug)]
pub struct ListBranches {
    /// Of which conversation.
    pub conversation: ConversationRef,
    /// Go on after the page that ended with this.
    pub after: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

impl Memory {
    /// Creates a conversation that shares the first messages of another one.
    pub async fn branch_conversation(
        &self,
        request: BranchConversation,
    ) -> Result<Conversation, Error> {
        let branch = Branch {
            parent: request.parent,
            at_seq: request.at_seq,
            id: ConversationId::from_uuid(self.new_id()),
            title: request.title,
            at: self.0.clock.now(),
        };
        let memory = self.clone();
        self.uninterrupted(async move {
            let branched = memory.0.store.branch(&branch).await;
            // Repeated, it may make a second branch.
            branched.map_err(|error| Error::of_write(error, branch.parent.id, false))
        })
        .await
    }

    /// A page of the conversations that branched from this one.
    pub async fn list_branches(&self, request: ListBranches) -> Result<ConversationPage, Error> {
        let ListBranches {
            conversation,
            after,
            limit,
        } = request;
        let page = self.0.store.branches(&conversation, after, limit).await;
        page.map_err(|error| Error::of_store(error, conversation.id))
    }
}
