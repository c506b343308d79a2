//! The durable truth: conversations and messages, for good.
//!
//! [`Store`] is what the use cases know. Its contract stands on the trait, its
//! cases in the conformance suite that every backend runs.

mod error;
mod failure;
mod files;
mod lineage;
mod pool;
pub mod postgres;
mod reads;
mod replay;
mod rows;
mod schema;
mod search;
mod sql;
pub mod sqlite;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use self::{
    error::{Reused, SchemaError, StoreError},
    search::{Hit, SearchKey, SearchPage, SearchQuery},
};
use crate::domain::{
    Conversation, ConversationChanges, ConversationId, ConversationRef, DeptId, Digest, Message,
    NewConversation, NewMessage, Numbered, RequestId, SessionId, Title, UserId,
};

/// No append reaches the disk later than this after it was called. The recent
/// window's announcements outlive it.
pub const APPEND_LIMIT: Duration = Duration::from_secs(8);

/// The same for a truncation or a deletion, which may have much to remove.
pub const REMOVAL_LIMIT: Duration = Duration::from_secs(45);

/// Where conversations and messages are kept.
///
/// Every method that takes a [`ConversationRef`] answers
/// [`StoreError::NotFound`] when there is no such conversation and, just the
/// same, when the claim of whose it is is wrong. A write that has returned Ok
/// is durable. A write that has returned an error other than
/// [`StoreError::OutcomeUnknown`] has changed nothing.
///
/// Writes are not cancel-safe: run them on a task that nobody drops.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Brings the schema to this program's version, or with `migrate` false
    /// only checks that it is there. Safe to run at once from many processes.
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError>;

    /// Creates a conversation. The same again gives the one that is there.
    /// [`StoreError::AlreadyExists`] when the id is taken by another, of
    /// whichever user.
    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Reads a conversation.
    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError>;

    /// Notes that a session is on a conversation, so that the session can be
    /// restored after it has expired, and reads the conversation. It is no
    /// activity.
    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError>;

    /// The conversation that a session was last on: one of `user`'s where
    /// there is one, else another user's, so that the caller can tell a foreign
    /// session from an unknown one.
    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError>;

    /// A page of a user's conversations, latest activity first. The order comes
    /// from a counter, not from a clock.
    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError>;

    /// Changes title or metadata.
    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Deletes a conversation with all that belongs to it, but for the messages
    /// that a branch shares: the last that shows a message takes it along.
    async fn delete(&self, conversation: &ConversationRef) -> Result<(), StoreError>;

    /// Saves a turn, whole or not at all, under the next numbers of its
    /// conversation. See [`Append`] and [`Appended`].
    async fn append(&self, append: &Append) -> Result<Appended, StoreError>;

    /// Creates a conversation that shares the first messages of another one and
    /// goes on by itself. Costs the same however many they are.
    /// [`StoreError::BeyondEnd`] when the other one has not come so far.
    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError>;

    /// A page of the conversations that branched from this one, latest activity
    /// first.
    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError>;

    /// Removes the messages after a point. Takes no number back. Branches keep
    /// what they share.
    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError>;

    /// The newest `limit` messages, oldest first, and the conversation, as
    /// they were at one moment.
    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<(Conversation, Vec<Message>), StoreError>;

    /// At most `limit` messages from one side of a number, in the order that
    /// `from` says.
    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError>;

    /// A conversation as it is at this moment, to be read at leisure whatever is
    /// saved or removed meanwhile. It holds a connection until it is dropped:
    /// [`StoreError::Unavailable`] when many do.
    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError>;

    /// Begins to import a conversation under an id that nothing has: with its
    /// times, as given, and without messages. Until [`Import::finish`] nobody sees
    /// anything of it, and if it is dropped, or the program ends, nothing is kept.
    /// [`StoreError::Unavailable`] when many are under way.
    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError>;

    /// A page of the user's messages that a query finds, best first, and among
    /// equals the ones saved last. Nothing of another user's is found, whatever the
    /// query names, nor anything that was truncated or deleted; a message is found
    /// once. A query that is left without words finds nothing. Ranks of two stores
    /// do not compare.
    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError>;

    /// Ends all connections. Calls after it are [`StoreError::Unavailable`].
    async fn close(&self);
}

/// A conversation's messages at one moment.
#[async_trait]
pub trait Snapshot: Send {
    /// At most `limit` messages with numbers above `seq`, lowest first, with
    /// their contexts.
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError>;
}

/// A conversation that is being imported.
#[async_trait]
pub trait Import: Send {
    /// Adds messages, whose numbers are higher than those before. Nothing can be
    /// added after an error.
    async fn add(&mut self, messages: &[Numbered]) -> Result<(), StoreError>;

    /// Keeps it. The next message of the conversation will have the number after
    /// `last_seq`, which is no lower than its last message's. It is its user's
    /// latest activity.
    async fn finish(self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError>;
}

/// Where a page of messages begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The messages with higher numbers, lowest first.
    After(i64),
    /// The messages with lower numbers, highest first.
    Before(i64),
}

impl Bound {
    /// The same direction, from another number on.
    #[must_use]
    pub fn past(self, seq: i64) -> Self {
        match self {
            Self::After(_) => Self::After(seq),
            Self::Before(_) => Self::Before(seq),
        }
    }
}

/// A conversation that begins in another one.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Where it begins.
    pub parent: ConversationRef,
    /// The last number that it shares with its parent, 1 or more.
    pub at_seq: i64,
    /// Its id, which nothing else has.
    pub id: ConversationId,
    /// What it is called; None for the parent's title.
    pub title: Option<Title>,
    /// When it is created.
    pub at: DateTime<Utc>,
}

/// Which conversations to list.
#[derive(Clone, Debug)]
pub struct ConversationQuery {
    /// Whose.
    pub user_id: UserId,
    /// Only those of this department.
    pub dept_id: Option<DeptId>,
    /// Go on after the page that ended with this [`ConversationPage::next`].
    pub after: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// A page of conversations.
#[derive(Clone, Debug)]
pub struct ConversationPage {
    /// The conversations, latest activity first.
    pub conversations: Vec<Conversation>,
    /// Where the next page goes on; None on the last.
    pub next: Option<i64>,
}

/// The identity of a retry: a key, and what the request said.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's key.
    pub id: RequestId,
    /// What the request said under it.
    pub digest: Digest,
}

/// A turn to be saved.
///
/// Checked in this order: the conversation exists and is the caller's; a known
/// `request` is replayed, or [`StoreError::AlreadyExists`] when it said
/// something else; when all the messages' ids were chosen and stand in this
/// conversation, in this order and with this content, that is a replay too;
/// `expected_last_seq` holds, or [`StoreError::Conflict`]; chosen message ids
/// are free.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub conversation: ConversationRef,
    /// What, in order; 1 to [`NewMessage::MAX_PER_SAVE`].
    pub messages: Vec<NewMessage>,
    /// What makes a retry safe.
    pub request: Option<Request>,
    /// Save only if the conversation still ends here.
    pub expected_last_seq: Option<i64>,
    /// The session that it was said in. Not noted when it was last on a
    /// conversation of another user.
    pub session_id: Option<SessionId>,
    /// The title for a conversation that has none.
    pub title: Option<Title>,
    /// When it is saved.
    pub at: DateTime<Utc>,
}

impl Append {
    /// Whether the same again would be known for a replay.
    pub fn is_repeatable(&self) -> bool {
        self.request.is_some() || self.messages.iter().all(|message| message.id_chosen)
    }
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// It was saved now.
    Saved {
        /// Whose conversation it is.
        owner: UserId,
        /// The number of its first message.
        first_seq: i64,
    },
    /// It had been saved before.
    Replayed {
        /// The number of its last message.
        last_seq: i64,
        /// Its messages, without contexts; those that have been removed since are left out.
        messages: Vec<Message>,
    },
}

/// A removal of the messages after a point. `request` and `expected_last_seq`
/// as in [`Append`].
#[derive(Clone, Debug)]
pub struct Truncation {
    /// Where.
    pub conversation: ConversationRef,
    /// The last number that stays.
    pub after_seq: i64,
    /// What makes a retry safe.
    pub request: Option<Request>,
    /// Remove only if the conversation still ends here.
    pub expected_last_seq: Option<i64>,
    /// When it is done.
    pub at: DateTime<Utc>,
}

/// What became of a [`Truncation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// How many messages it removed; the first outcome when it is replayed.
    pub removed: i64,
    /// The conversation's last number, which stays.
    pub last_seq: i64,
}
