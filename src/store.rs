//! Durable storage of conversations and messages.
//!
//! The use cases depend on [`Store`] alone. The trait defines the contract, and one
//! conformance suite runs its cases on every backend.

pub mod checkpoints;
mod compactions;
mod conversations;
mod effects;
mod error;
mod group_commit;
mod items;
mod lineage;
mod metadata_json;
mod operation_error;
mod operations;
mod ownership;
mod pool;
pub mod postgres;
mod reads;
mod redactions;
mod replay;
mod rows;
mod schema;
mod search;
mod search_limit;
mod sql;
pub mod sqlite;
mod transfers;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub use self::{
    checkpoints::{
        AncestorQuery, CheckpointPage, CheckpointPosition, CheckpointQuery, CheckpointRecord,
        CheckpointStore, PutCheckpoint, PutWrites, StoredCheckpoint,
    },
    error::{ReusedKey, SchemaError, StoreError},
    items::{
        ItemHit, ItemHits, ItemSearch, ItemStore, ItemWrite, MAX_EXAMINED, NamespacePage,
        NamespaceQuery, NewItem, StoredItem,
    },
    lineage::MAX_BRANCH_DEPTH,
    operations::{
        Append, Appended, Bound, Branch, Compaction, ConversationPage, ConversationQuery,
        Invalidation, MinState, Newest, OwnerChange, PendingInvalidation, Redacted, Redaction,
        RequestIdentity, Truncated, Truncation,
    },
    ownership::{MAX_FAMILY_CONVERSATIONS, MAX_FAMILY_MESSAGES},
    search::{MessagePlace, Reindexed, SearchHit, SearchKey, SearchPage, SearchQuery},
};
use crate::domain::{
    Conversation, ConversationChanges, ConversationId, ConversationRef, Message, NewConversation,
    NumberedMessage, SessionId, UserId,
};

/// Maximum time from the beginning of an append until it commits. Announcements in the recent
/// window outlive it.
pub const APPEND_LIMIT: Duration = Duration::from_secs(8);

/// Maximum time from the beginning of a truncation, a deletion or a compaction until it commits. It exceeds
/// [`APPEND_LIMIT`], because a removal can affect many messages.
pub const REMOVAL_LIMIT: Duration = Duration::from_secs(45);

/// Durable storage of conversations and messages, and of items.
///
/// # Contract of all methods
///
/// - A method that takes a [`ConversationRef`] returns [`StoreError::NotFound`] both if there
///   is no such conversation and if the user that it names does not own it, so that callers
///   cannot distinguish the two cases.
/// - A write that returned Ok is durable: it survives a crash of the process and of the store.
/// - A write that returned an error has changed nothing, with one exception: after
///   [`StoreError::OutcomeUnknown`], it may have been committed.
/// - A write is atomic. Readers see all of it or nothing.
///
/// # Errors
///
/// Besides the errors that it lists, each method can fail with:
///
/// - [`StoreError::Unavailable`] if the store cannot be reached, is overloaded or
///   read-only, or did not respond in time. Nothing was written, and a retry can succeed.
/// - [`StoreError::Full`] if the disk of the store is full. Nothing was written. Reads succeed, and
///   writes succeed again as soon as there is room.
/// - [`StoreError::OutcomeUnknown`], for writes only, if the connection or the disk failed
///   while the write may have been committed.
/// - [`StoreError::Internal`] for a defect. A retry does not help.
///
/// # Cancel safety
///
/// Reads are cancel safe. Writes are not: if the future is dropped, the write may be executed,
/// completely or not at all, and its outcome is lost. Run writes on tasks that no caller drops.
#[async_trait]
pub trait Store: CheckpointStore + ItemStore {
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
    /// Fails with [`StoreError::AlreadyExists`] and [`ReusedKey::ConversationId`] if the id is in
    /// use by another conversation, of any user.
    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Reads a conversation, without its messages.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError>;

    /// Records a conversation as the current one of a session, so that the session can be
    /// restored after it has expired, and reads the conversation. Does not count as activity.
    ///
    /// Idempotent. Writes nothing if this is the session's current conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError>;

    /// Reads the current conversation of a user's session, as it was last recorded. Returns `None`
    /// if none was recorded. What other users recorded for the same id has no effect on the result,
    /// nor on its cost.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError>;

    /// Reads a page of a user's conversations, latest activity first. The order comes from a
    /// counter of the store, not from a clock. A page whose conversations are too large for a
    /// response ends early, after at least one.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods. A user without conversations has an empty page.
    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError>;

    /// Changes the title or the metadata of a conversation, and reads it. Counts as activity
    /// if it changes anything.
    ///
    /// Idempotent, except that each call counts as activity.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError>;

    /// Deletes a conversation with its messages, contexts and idempotency keys. Messages that a
    /// branch contains are kept until the last conversation that contains them is deleted.
    ///
    /// Not idempotent: a retry returns [`StoreError::NotFound`]. Ends within
    /// [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn delete(
        &self,
        conversation: &ConversationRef,
        invalidation: Invalidation,
    ) -> Result<(), StoreError>;

    /// Saves a turn completely or not at all. Its messages receive the next numbers of the
    /// conversation, which are consecutive and in the order of the commits, even if several
    /// processes save. Counts as activity.
    ///
    /// Idempotent if [`Append::is_repeatable`]: a retry returns [`Appended::Replayed`]. Ends
    /// within [`APPEND_LIMIT`].
    ///
    /// # Errors
    ///
    /// The checks are made in the order in which [`Append`] lists them:
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
    /// - [`StoreError::AlreadyExists`] if the id is in use, as for [`Self::create`].
    /// - [`StoreError::BeyondEnd`] if the parent ends before `at_seq`.
    /// - [`StoreError::TooDeep`] if the branch would be more than [`MAX_BRANCH_DEPTH`] branches deep.
    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError>;

    /// Reads a page of the conversations that were branched from this one, latest activity
    /// first. `after` is the [`ConversationPage::next`] of the previous page. A page ends early as
    /// that of [`Self::list`].
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError>;

    /// Removes the messages after a number. Their numbers are not assigned again, and branches
    /// keep the messages that they share. A summary that stands for a removed message is removed,
    /// and so is a title that was derived from one. Counts as activity.
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

    /// Replaces the first messages of a conversation in [`Self::newest`] by a summary, in place of
    /// an earlier one, or removes the summary. Everything else continues to return the messages.
    /// Returns the last number of the conversation. Does not count as activity.
    ///
    /// Idempotent with a `request`: a retry changes nothing, and returns the first outcome, also
    /// after a later compaction. Ends within [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// The checks are made in the order in which [`Compaction`] lists them:
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::AlreadyExists`] if the idempotency key is in use with other content.
    /// - [`StoreError::Conflict`] if `expected_last_seq` is set and the conversation does not end
    ///   there.
    /// - [`StoreError::BeyondEnd`] if the conversation ends before `upto_seq`.
    async fn compact(&self, compaction: &Compaction) -> Result<i64, StoreError>;

    /// Finds the conversations that contain any of these messages of a conversation, which is
    /// among them.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::redact`] does.
    async fn containing(
        &self,
        conversation: &ConversationRef,
        seqs: &[i64],
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Removes text, parts, name, metadata and contexts of messages of a conversation, in all
    /// conversations that contain them. Number, id, role and times remain. In these conversations,
    /// a summary that stands for one of the messages is removed, and so is a title that was derived
    /// from one. Does not count as activity.
    ///
    /// Idempotent: messages that have been redacted before are not changed. Ends within
    /// [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::MessageNotFound`] if it does not contain one of the messages. No message is
    ///   redacted then.
    async fn redact(&self, redaction: &Redaction) -> Result<Redacted, StoreError>;

    /// Finds the family of a conversation: all conversations that are connected with it by branches,
    /// itself included. They share messages, and belong to one user.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::change_owner`] does.
    async fn family(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError>;

    /// Changes the owner of the family of a conversation, and of its messages in searches. The
    /// sessions of the previous owner are no longer recorded with it. Returns the conversations. Does
    /// not count as activity.
    ///
    /// Idempotent. Ends within [`REMOVAL_LIMIT`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation, which also belongs to another
    ///   user than the new owner.
    /// - [`StoreError::FamilyTooLarge`] if the family has more than [`MAX_FAMILY_CONVERSATIONS`], or
    ///   these contain more than [`MAX_FAMILY_MESSAGES`] different ones.
    async fn change_owner(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError>;

    /// Reads the newest `limit` messages that no summary stands for, or fewer if they are large
    /// ([`Newest::is_cut`]), the pinned messages, the summary and the conversation, in one
    /// consistent read. `contexts` selects whether the messages include their contexts.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<Newest, StoreError>;

    /// Reads the data of the blobs of a message, with the indices of their parts. Returns nothing
    /// if the conversation has no such message.
    ///
    /// The caller has verified the owner, by a read of the message.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn blobs(
        &self,
        conversation: ConversationId,
        seq: i64,
    ) -> Result<Vec<(u32, Bytes)>, StoreError>;

    /// Reads at most `limit` messages on one side of a number, in the order of `from`. Reads fewer
    /// if they are large, but at least one if there is any, so that only an empty result shows the
    /// end. `contexts` selects whether the messages include their contexts.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError>;

    /// Reads messages as [`Self::messages`] does, from `state` or a later one. Returns the state that
    /// the next page needs as well.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::messages`] does.
    async fn messages_since(
        &self,
        state: MinState,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<(Vec<Message>, MinState), StoreError> {
        let _ = state;
        let messages = self.messages(conversation, from, limit, contexts).await?;
        Ok((messages, MinState::Latest))
    }

    /// Takes a snapshot of a conversation, in any state within the maximum lag of replicas, which can
    /// be read slowly: later writes do not change it. It holds a connection until it is dropped, so
    /// their number is limited.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::Unavailable`] if too many snapshots and imports are in use.
    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError>;

    /// Begins to import a conversation with its id and its times as given and without messages. Nothing is visible before [`Import::finish`], and nothing is stored if the
    /// import is dropped or the process ends before that.
    ///
    /// # Errors
    ///
    /// - [`StoreError::Unavailable`] if too many snapshots and imports are in use.
    /// - [`StoreError::AlreadyExists`] if the id is in use, as for [`Self::create`]; here or from
    ///   [`Import::finish`]. If the id of a message is in use, [`Import::add`] or
    ///   [`Import::finish`] fails with it.
    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError>;

    /// Reads a page of the user's messages that match a query, best rank first, and among
    /// equal ranks the latest saved first.
    ///
    /// Returns each matching message once. Never returns messages of other users, even if the
    /// query names one of their conversations, nor messages that were truncated or deleted. A
    /// query without searchable words returns an empty page. All stores find the same messages in
    /// the same order.
    ///
    /// # Errors
    ///
    /// Every text is a valid query.
    ///
    /// - [`StoreError::SearchTooExpensive`] if the search exceeded its time limit.
    /// - [`StoreError::TooManySearches`] if others kept it waiting for too long. No other method
    ///   ever waits for searches to end.
    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError>;

    /// Corrects typing errors in a query that finds nothing, by the words of the newest messages
    /// that it searches: see [`Correction`](crate::text_analysis::Correction). `None` if no word is
    /// corrected. Fails as [`Self::search`] does.
    async fn correct(&self, query: &SearchQuery) -> Result<Option<String>, StoreError>;

    /// Analyzes some of the messages again that another analysis has prepared for the search, after
    /// a position; `None` begins. Can be interrupted and repeated while other processes write.
    async fn reindex(&self, after: Option<MessagePlace>) -> Result<Reindexed, StoreError>;

    /// Identity of the history of the store's data. It changes when the store goes back to an
    /// earlier state, for example when another server is promoted: what was copied from the store
    /// before is then invalid. Every call that begins afterwards uses this history or a later one.
    fn history(&self) -> Bytes;

    /// Whether a connection to a database server is open and not in use. Without one, a read opens a
    /// connection first, or waits for one that is in use.
    fn has_idle_connection(&self) -> bool;

    /// Reads a page of the pending invalidations that writes have recorded, in ascending order of
    /// the conversations, after `after`.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn pending_invalidations(
        &self,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<PendingInvalidation>, StoreError>;

    /// Removes pending invalidations whose windows have been dropped. One that a later write has
    /// recorded again remains. The removal may be undone by a crash of the store.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn complete_invalidations(
        &self,
        completed: &[PendingInvalidation],
    ) -> Result<(), StoreError>;

    /// Closes all connections, after waiting for those that are in use. Later calls return
    /// [`StoreError::Unavailable`].
    async fn close(&self);
}

/// Messages of a conversation in one consistent snapshot.
#[async_trait]
pub trait Snapshot: Send {
    /// Reads at most `limit` messages with numbers above `seq`, in ascending order, with their
    /// contexts. Reads fewer if they are large, as [`Store::messages`] does.
    ///
    /// # Errors
    ///
    /// Fails with the errors that all methods of [`Store`] have. A snapshot is not usable after an
    /// error.
    async fn after(&mut self, seq: i64, limit: u32) -> Result<Vec<Message>, StoreError>;

    /// Reads the data of the blobs of a message, with the indices of their parts.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::after`] does.
    async fn blobs(&mut self, seq: i64) -> Result<Vec<(u32, Bytes)>, StoreError>;
}

/// Import of a conversation in progress.
#[async_trait]
pub trait Import: Send {
    /// Adds messages, whose numbers are above those of all earlier ones.
    ///
    /// # Errors
    ///
    /// Fails with the errors that all methods of [`Store`] have. An import is not usable after an
    /// error.
    async fn add(&mut self, messages: &[NumberedMessage]) -> Result<(), StoreError>;

    /// Stores the conversation durably, as its user's latest activity. `last_seq` is the number
    /// after which the conversation continues, at least that of its last message.
    ///
    /// # Errors
    ///
    /// Fails with the errors that all methods of [`Store`] have.
    ///
    /// # Cancel safety
    ///
    /// As for all writes of [`Store`].
    async fn finish(self: Box<Self>, last_seq: i64) -> Result<Conversation, StoreError>;
}
