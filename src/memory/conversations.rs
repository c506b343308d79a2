use super::{Error, Memory, budget::Budget};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, DeptId, Message,
        Metadata, NewConversation, Title, UserId,
    },
    store::{Bound, ConversationPage, ConversationQuery, MinState},
};

/// Conversation to be created.
#[derive(Clone, Debug)]
pub struct CreateConversation {
    /// Id that the caller chose; `None` generates one.
    pub id: Option<ConversationId>,
    /// Owner.
    pub user_id: UserId,
    /// Department of the owner.
    pub dept_id: Option<DeptId>,
    /// Title; `None` derives it from the first user message.
    pub title: Option<Title>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
}

/// Request for a page of a conversation's messages.
#[derive(Clone, Debug)]
pub struct ListMessages {
    /// Conversation whose messages are listed.
    pub conversation: ConversationRef,
    /// Number that the page begins at, and its direction.
    pub from: Bound,
    /// State that is read at least.
    pub state: MinState,
    /// Upper bound on the messages of the page.
    pub limit: u32,
    /// Whether messages include their contexts.
    pub contexts: bool,
    /// Whether messages include the data of blobs, as far as it fits.
    pub blobs: bool,
}

/// Page of a conversation's messages.
#[derive(Debug)]
pub struct MessagePage {
    /// Messages in the order of the request.
    pub messages: Vec<Message>,
    /// Whether further messages follow.
    pub more: bool,
    /// State that the next page needs in order to continue this one.
    pub state: MinState,
}

impl Memory {
    /// Creates a conversation, or returns the one that the same request created before.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Reused`] if the id belongs to a different conversation, or with an error
    /// of the write.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn create_conversation(
        &self,
        request: CreateConversation,
    ) -> Result<Conversation, Error> {
        let retry_is_safe = request.id.is_some();
        let new = NewConversation {
            id: request
                .id
                .unwrap_or_else(|| ConversationId::from_uuid(self.new_id())),
            user_id: request.user_id,
            dept_id: request.dept_id,
            title: request.title,
            metadata: request.metadata,
            session_id: None,
            is_listed: true,
            reuses_id: false,
        };
        self.create(new, retry_is_safe).await
    }

    pub(super) async fn create(
        &self,
        new: NewConversation,
        retry_is_safe: bool,
    ) -> Result<Conversation, Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            memory
                .0
                .store
                .create(&new, memory.0.clock.now())
                .await
                .map_err(|error| Error::from_write(error, new.id, retry_is_safe))
        })
        .await
    }

    /// Reads a conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with [`Error::Unavailable`]
    /// if the store cannot be reached.
    pub async fn get_conversation(
        &self,
        conversation: &ConversationRef,
    ) -> Result<Conversation, Error> {
        self.0
            .store
            .get(conversation)
            .await
            .map_err(|error| Error::from_store(error, conversation.id))
    }

    /// Lists a page of a user's conversations, latest activity first.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Unavailable`] if the store cannot be reached.
    pub async fn list_conversations(
        &self,
        query: ConversationQuery,
    ) -> Result<ConversationPage, Error> {
        let _permit = self.read_permit().await?;
        self.0.store.list(&query).await.map_err(Error::from_query)
    }

    /// Changes a conversation's title or metadata.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation, or with an error of the
    /// write.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn update_conversation(
        &self,
        conversation: ConversationRef,
        changes: ConversationChanges,
    ) -> Result<Conversation, Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            memory
                .0
                .store
                .update(&conversation, &changes, memory.0.clock.now())
                .await
                .map_err(|error| Error::from_store(error, conversation.id))
        })
        .await
    }

    /// Lists a page of a conversation's messages. A page that would be too large for a response ends early, after at least one message.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with [`Error::Unavailable`]
    /// if the store cannot be reached.
    pub async fn list_messages(&self, request: &ListMessages) -> Result<MessagePage, Error> {
        let permit = self.read_permit().await?;
        let mut page = self.read_page(request).await?;
        if request.blobs {
            self.attach_blobs(request.conversation.id, &mut page.messages, &permit)
                .await;
        }
        Ok(page)
    }

    async fn read_page(&self, request: &ListMessages) -> Result<MessagePage, Error> {
        let limit = request.limit as usize;
        let mut page = MessagePage {
            messages: Vec::new(),
            more: false,
            // The data of blobs is read from the latest state.
            state: if request.blobs {
                MinState::Latest
            } else {
                request.state
            },
        };
        let mut budget = Budget::default();
        let mut from = request.from;
        loop {
            // One more shows whether another page follows.
            let missing = u32::try_from(limit - page.messages.len() + 1).unwrap_or(u32::MAX);
            let wanted = budget.next_read(missing);
            let conversation = &request.conversation;
            let messages = self.0.store.messages_since(
                page.state,
                conversation,
                from,
                wanted,
                request.contexts,
            );
            let (messages, state) = messages
                .await
                .map_err(|error| Error::from_store(error, conversation.id))?;
            page.state = state;
            if messages.is_empty() {
                return Ok(page);
            }
            for message in messages {
                if page.messages.len() == limit || !budget.admits(&message) {
                    page.more = true;
                    return Ok(page);
                }
                from = from.past(message.seq);
                page.messages.push(message);
            }
        }
    }
}
