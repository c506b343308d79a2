//! Durable storage of conversations and messages.
//!
//! The use cases depend on [`Store`] alone. The trait defines the contract, and one
//! conformance suite runs its cases on every backend.

mod conversations;
mod error;
mod lineage;
mod operation_error;
mod pool;
pub mod postgres;
mod reads;
mod replay;
mod rows;
mod schema;
mod search;
mod sql;
pub mod sqlite;
mod transfers;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use self::{
    error::{ReusedKey, SchemaError, StoreError},
    search::{SearchHit, SearchKey, SearchPage, SearchQuery},
};
use crate::domain::{
    Conversation, ConversationChanges, ConversationId, ConversationRef, DeptId, Digest, Message,
    NewConversation, NewMessage, NumberedMessage, RequestId, SessionId, Title, UserId,
};

/// Maximum time from the beginning of an append until it commits. Announcements in the recent
/// window outlive it.
pub const APPEND_LIMIT: Duration = Duration::from_secs(8);

/// Maximum time from the beginning of a truncation or a deletion until it commits. It is
/// longer, because a removal can have much to remove.
pub const REMOVAL_LIMIT: Duration = Duration::from_secs(45);

/// Durable storage of conversations and messages.
///
/// # Contract of all methods
///
/// - A method that takes a [`ConversationRef`] returns [`StoreError::NotFound`] both if there
///   is no such conversation and if the user that it names does not own it, so that callers
///   cannot tell the two apart.
/// - A write that returned Ok is durable: it survives a crash of the process and of the store.
/// - A write that returned an error has changed nothing, with one exception: after
///   [`StoreError::OutcomeUnknown`], it may have been committed.
/// - A write is atomic. Readers see all of it or nothing.
///
/// # Errors
///
/// Besides the errors that a method lists, each can return
///
/// - [`StoreError::Unavailable`] if the store cannot be reached, is overloaded, read-only or
///   full, or did not respond in time. Nothing was written, and a retry can succeed.
/// - [`StoreError::OutcomeUnknown`], for writes only, if the connection or the disk failed
///   while the write may have been committed.
/// - [`StoreError::Internal`] for a defect. A retry does not help.
///
/// # Cancel safety
///
/// Reads are cancel safe. Writes are not: if the future is dropped, the write may be executed,
/// completely or not at all, and its outcome is lost. Run writes on tasks that no caller drops.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Checks that the schema has the version of this program and, if `migrate` is set,
    /// migrates an older one. Several processes can call it at the same time.
    ///
    /// # Errors
    ///
    /// Returns the [`SchemaError`] that describes why the schema cannot be used.
    ///
    /// # Cancel safety
    ///
    /// A dropped migration is rolled back, or completed by the next call.
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError>;

    /// Creates a conversation without messages.
    ///
    /// Idempotent: the same call again returns the conversation in its current state, with
    /// the messages that it has received since.
    ///
    /// # Errors
    ///
    /// [`StoreError::AlreadyExists`] with [`ReusedKey::ConversationId`] if the id is in use by
    /// another conversation, of whichever user.
    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Reads a conversation, without its messages.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError>;

    /// Records that a session is on a conversation, so that the session can be restored after
    /// it has expired, and reads the conversation. Does not count as activity.
    ///
    /// Idempotent. Writes nothing if the session was last on this conversation.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError>;

    /// Reads the conversation that a session was last on. None if the session was never
    /// recorded.
    ///
    /// Prefers the conversations of `user`. If the session was only on those of other users,
    /// one of them is returned, so that the caller can distinguish a foreign session from an
    /// unknown one.
    ///
    /// # Errors
    ///
    /// Only the errors of all methods.
    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError>;

    /// Reads a page of a user's conversations, latest activity first. The order comes from a
    /// counter of the store, not from a clock.
    ///
    /// # Errors
    ///
    /// Only the errors of all methods. A user without conversations has an empty page.
    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError>;

    /// Changes the title or the metadata of a conversation, and reads it. Counts as activity
    /// if it changes anything.
    ///
    /// Idempotent, except that each call counts as activity.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Deletes a conversation with its messages, contexts and idempotency keys. Messages that a
    /// branch shows are kept until the last conversation that shows them is deleted.
    ///
    /// Not idempotent: a retry returns [`StoreError::NotFound`]. Ends within
    /// [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn delete(&self, conversation: &ConversationRef) -> Result<(), StoreError>;

    /// Saves a turn completely or not at all. Its messages receive the next numbers of the
    /// conversation, which are consecutive and in the order of the commits, whichever process
    /// saves. Counts as activity.
    ///
    /// Idempotent if [`Append::is_repeatable`]: a retry returns [`Appended::Replayed`]. Ends
    /// within [`APPEND_LIMIT`].
    ///
    /// # Errors
    ///
    /// In the order in which [`Append`] lists the checks:
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::AlreadyExists`] if the idempotency key or a chosen message id is in use
    ///   with other content.
    /// - [`StoreError::Conflict`] if `expected_last_seq` is set and the conversation does not end
    ///   there.
    async fn append(&self, append: &Append) -> Result<Appended, StoreError>;

    /// Creates a conversation that shares the first messages of its parent and continues
    /// independently. No message is copied: the cost does not depend on their number.
    ///
    /// Not idempotent: the id must be new.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such parent.
    /// - [`StoreError::BeyondEnd`] if the parent ends before `at_seq`.
    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError>;

    /// Reads a page of the conversations that were branched from this one, latest activity
    /// first. `after` is the [`ConversationPage::next`] of the previous page.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError>;

    /// Removes the messages after a number. Their numbers are not assigned again, and branches
    /// keep what they share. Counts as activity.
    ///
    /// Idempotent with a `request`: a retry returns the first outcome, and does not remove
    /// messages that were saved since. Ends within [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::AlreadyExists`] if the idempotency key is in use with other content.
    /// - [`StoreError::Conflict`] if `expected_last_seq` is set and the conversation does not end
    ///   there.
    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError>;

    /// Reads the newest `limit` messages in ascending order and the conversation, as of one
    /// moment. `contexts` selects whether the messages include their contexts.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<(Conversation, Vec<Message>), StoreError>;

    /// Reads at most `limit` messages on one side of a number, in the order of `from`.
    /// `contexts` selects whether the messages include their contexts.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there is no such conversation.
    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError>;

    /// Takes a snapshot of a conversation, which can be read slowly: later writes do not change
    /// it. It holds a connection until it is dropped, so their number is limited.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::Unavailable`] if too many snapshots and imports are in use.
    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError>;

    /// Begins to import a conversation with its times as given and without messages. The id
    /// must be new. Nothing is visible before [`Import::finish`], and nothing is stored if the
    /// import is dropped or the process ends before that.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if too many snapshots and imports are in use.
    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError>;

    /// Reads a page of the user's messages that match a query, best rank first, and among
    /// equal ranks the latest saved first.
    ///
    /// Finds each message once, and none of other users, whatever the query names, nor any that
    /// was truncated or deleted. A query without searchable words finds nothing. Ranks of
    /// different stores are not comparable.
    ///
    /// # Errors
    ///
    /// Only the errors of all methods: every text is a valid query.
    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError>;

    /// Closes all connections, after waiting for those that are in use. Later calls return
    /// [`StoreError::Unavailable`].
    async fn close(&self);
}

/// Messages of a conversation as of one moment.
#[async_trait]
pub trait Snapshot: Send {
    /// Reads at most `limit` messages with numbers above `seq`, in ascending order, with their
    /// contexts.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Store`]. A snapshot is not usable after an error.
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError>;
}

/// Import of a conversation in progress.
#[async_trait]
pub trait Import: Send {
    /// Adds messages, whose numbers are above those of all earlier ones.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Store`]. An import is not usable after an error.
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError>;

    /// Stores the conversation durably, as its user's latest activity. `last_seq` is the number
    /// after which the conversation continues, at least that of its last message.
    ///
    /// # Errors
    ///
    /// As for all methods of [`Store`].
    ///
    /// # Cancel safety
    ///
    /// As for all writes of [`Store`].
    async fn finish(self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError>;
}

/// Start and direction of a page of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Messages with higher numbers, in ascending order.
    After(i64),
    /// Messages with lower numbers, in descending order.
    Before(i64),
}

impl Bound {
    /// Returns the bound with the same direction that starts at another number.
    #[must_use]
    pub fn past(self, seq: i64) -> Self {
        match self {
            Self::After(_) => Self::After(seq),
            Self::Before(_) => Self::Before(seq),
        }
    }
}

/// Branch to create.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Conversation to branch from.
    pub parent: ConversationRef,
    /// Number of the last message that is shared with the parent, 1 or more.
    pub at_seq: i64,
    /// Id of the branch, which must be new.
    pub id: ConversationId,
    /// Title of the branch; None for the title of the parent.
    pub title: Option<Title>,
    /// Time of the creation.
    pub at: DateTime<Utc>,
}

/// Query for a page of a user's conversations.
#[derive(Clone, Debug)]
pub struct ConversationQuery {
    /// Owner of the conversations.
    pub user_id: UserId,
    /// Department of the conversations; None for all.
    pub dept_id: Option<DeptId>,
    /// [`ConversationPage::next`] of the previous page; None for the first page.
    pub after: Option<i64>,
    /// Maximum number of conversations.
    pub limit: u32,
}

/// Page of conversations.
#[derive(Clone, Debug)]
pub struct ConversationPage {
    /// Conversations, latest activity first.
    pub conversations: Vec<Conversation>,
    /// Position from which the next page continues; None on the last page.
    pub next: Option<i64>,
}

/// Identity of a request, by which a retry is recognized.
#[derive(Clone, Debug)]
pub struct Request {
    /// Idempotency key that the caller chose.
    pub id: RequestId,
    /// Digest of the request's content. A retry has the same.
    pub digest: Digest,
}

/// Turn to save.
///
/// The checks are, in this order:
///
/// 1. The conversation exists, and the caller owns it.
/// 2. A known `request` is replayed if its content is the same, and otherwise rejected.
/// 3. If all message ids were chosen by the caller and are stored in this conversation, in this
///    order and with this content, the save is replayed.
/// 4. The conversation ends at `expected_last_seq`.
/// 5. The chosen message ids are not in use.
#[derive(Clone, Debug)]
pub struct Append {
    /// Conversation to append to.
    pub conversation: ConversationRef,
    /// Messages of the turn, in order: 1 to [`NewMessage::MAX_PER_SAVE`].
    pub messages: Vec<NewMessage>,
    /// Identity of the request; None if a retry is not recognized by it.
    pub request: Option<Request>,
    /// Number at which the conversation must end; None accepts any.
    pub expected_last_seq: Option<i64>,
    /// Session of the turn. It is not attached if it was last on a conversation of another
    /// user.
    pub session_id: Option<SessionId>,
    /// Title for a conversation that has none.
    pub title: Option<Title>,
    /// Time of the save.
    pub at: DateTime<Utc>,
}

impl Append {
    /// Returns whether a retry of this save would be recognized.
    pub fn is_repeatable(&self) -> bool {
        self.request.is_some() || self.messages.iter().all(|message| message.id_chosen)
    }
}

/// Outcome of an [`Append`].
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// The turn was saved by this call.
    Saved {
        /// Owner of the conversation.
        owner: UserId,
        /// Number of the turn's first message.
        first_seq: i64,
    },
    /// The turn was saved by an earlier call.
    Replayed {
        /// Number of the turn's last message.
        last_seq: i64,
        /// Messages of the turn, without contexts and without those that were removed since.
        messages: Vec<Message>,
    },
}

/// Removal of the messages after a number.
#[derive(Clone, Debug)]
pub struct Truncation {
    /// Conversation to truncate.
    pub conversation: ConversationRef,
    /// Number of the last message to keep; 0 removes all.
    pub after_seq: i64,
    /// Identity of the request; None if a retry is not recognized.
    pub request: Option<Request>,
    /// Number at which the conversation must end; None accepts any.
    pub expected_last_seq: Option<i64>,
    /// Time of the truncation.
    pub at: DateTime<Utc>,
}

/// Outcome of a [`Truncation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Number of removed messages. A replay returns that of the first call.
    pub removed: i64,
    /// Last number of the conversation, which a truncation does not change.
    pub last_seq: i64,
}
