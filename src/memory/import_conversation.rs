use chrono::{DateTime, Utc};

use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationId, DeptId, Metadata, Numbered, Title, UserId},
    store,
};

/// A conversation to be imported.
#[derive(Clone, Debug)]
pub struct ImportConversation {
    /// Whose it becomes.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// What it is called.
    pub title: Option<Title>,
    /// When it was created; None for now.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed; None for now.
    pub updated_at: Option<DateTime<Utc>>,
    /// Anything else.
    pub metadata: Option<Metadata>,
}

/// A conversation that is being imported. Dropped before [`Self::finish`], it has
/// never been there.
pub struct Import {
    memory: Memory,
    id: ConversationId,
    stored: Box<dyn store::Import>,
    messages: i64,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("conversation", &self.id)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Begins to import a conversation.
    pub async fn import_conversation(&self, request: ImportConversation) -> Result<Import, Error> {
        let now = self.0.clock.now();
        let conversation = Conversation {
            id: ConversationId::from_uuid(self.new_id()),
            user_id: request.user_id,
            dept_id: request.dept_id,
            title: request.title,
            last_seq: 0,
            created_at: request.created_at.unwrap_or(now),
            updated_at: request.updated_at.unwrap_or(now),
            metadata: request.metadata,
            parent_id: None,
            branched_at_seq: None,
        };
        let import = self.0.store.import(&conversation).await;
        Ok(Import {
            memory: self.clone(),
            id: conversation.id,
            stored: import.map_err(|error| Error::of_store(error, conversation.id))?,
            messages: 0,
        })
    }
}

impl Import {
    /// Adds messages, whose numbers go up.
    pub async fn add(&mut self, messages: &[Numbered]) -> Result<(), Error> {
        let added = self.stored.add(messages).await;
        added.map_err(|error| Error::of_store(error, self.id))?;
        self.messages += i64::try_from(messages.len()).unwrap_or(0);
        Ok(())
    }

    /// Keeps the conversation, and says how many messages it has.
    pub async fn finish(self, last_seq: i64) -> Result<(Conversation, i64), Error> {
        let Self {
            memory,
            id,
            stored,
            messages,
        } = self;
        let write = async move {
            let finished = stored.finish(last_seq).await;
            // Repeated, it may be imported twice.
            finished.map_err(|error| Error::of_write(error, id, false))
        };
        Ok((memory.uninterrupted(write).await?, messages))
    }
}
