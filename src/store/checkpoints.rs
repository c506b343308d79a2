//! Checkpoints of agent graphs: the trait, and what both databases share.
//!
//! A put or a read is planned here, on rows that `rows::CheckpointRows` reads and writes in a
//! database. The rows are described in `migrations/postgres/0012_checkpoints.sql`.

mod encoding;
mod put;
mod read;
mod removal;
mod rows;
mod values;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

pub(super) use self::{
    put::{
        all_messages, contents_rows, keys_of, new_messages, place_of, plan_put, put_checkpoint,
        put_contents, put_writes, stored_keys, writes_row,
    },
    read::{read_ancestors, read_checkpoint, read_contents, read_page},
    removal::{Selection, selected, unneeded_contents, unneeded_values},
    rows::{
        CheckpointColumns, CheckpointRow, CheckpointRows, Content, HeadColumns, Heads,
        NewCheckpointRow, NewMessages, NewValueRow, NewWritesRow, PlannedPut, SequenceRow,
        ThreadPlace, ThreadPlan, ValueColumns, ValueHead, ValueRow,
    },
    values::continued_keys,
};
use super::{Appended, Invalidation, StoreError};
use crate::domain::{
    ChannelWrite, Checkpoint, CheckpointId, CheckpointNamespace, ContentDigest, Contents,
    ConversationId, ConversationRef, NewMessage, Title, UserId,
};

/// Maximum time from the beginning of a put until it commits.
pub const PUT_LIMIT: Duration = Duration::from_secs(8);

/// Upper bound on the data of a response, in bytes.
pub const MAX_CONTENT_BYTES: usize = 3 << 20;

/// Upper bound on the bytes of checkpoints and values, without stored data, that one response has.
pub const MAX_SKELETON_BYTES: usize = 8 << 20;

/// Upper bound on the calls whose writes a checkpoint has.
pub const MAX_WRITE_CALLS: u32 = 10_000;

/// Request to store a checkpoint with its new values and messages.
#[derive(Clone, Debug)]
pub struct PutCheckpoint {
    /// Conversation of the thread.
    pub conversation: ConversationRef,
    /// The thread's own name.
    pub thread_name: Option<String>,
    /// Namespace.
    pub namespace: CheckpointNamespace,
    /// Checkpoint with its new values.
    pub checkpoint: Checkpoint,
    /// Channels whose values an earlier put has stored, which must still be there.
    pub stored_channels: Vec<String>,
    /// Writes to the parent of the checkpoint, those of each task. Without a parent there are none.
    pub task_writes: Vec<Vec<ChannelWrite>>,
    /// Digest of the id of the run that created it.
    pub run: Option<ContentDigest>,
    /// Data of its values.
    pub contents: Contents,
    /// Messages to save, with their keys in the graph.
    pub messages: Vec<(String, NewMessage)>,
    /// Title that is set if the conversation has none, and the index of the message that it was
    /// derived from.
    pub title: Option<(Title, usize)>,
    /// Whether the save of messages records a pending invalidation.
    pub invalidation: Invalidation,
    /// Time of the call.
    pub at: DateTime<Utc>,
}

/// Outcome of a [`PutCheckpoint`].
#[derive(Debug)]
pub struct StoredCheckpoint {
    /// Number of the conversation's last message.
    pub last_seq: i64,
    /// Messages that were saved, and the outcome of their save; `None` if there were none.
    pub saved: Option<(Vec<NewMessage>, Appended)>,
}

impl StoredCheckpoint {
    /// Outcome of a put that has saved no messages.
    pub(super) fn without_messages(last_seq: i64) -> Self {
        Self {
            last_seq,
            saved: None,
        }
    }

    /// Outcome of a put that has saved messages.
    pub(super) fn with_messages(messages: Vec<NewMessage>, appended: Appended) -> Self {
        let count = i64::try_from(messages.len()).unwrap_or(i64::MAX);
        let last_seq = match appended {
            Appended::Saved { first_seq, .. } => first_seq + count - 1,
            Appended::Replayed { last_seq, .. } => last_seq,
        };
        Self {
            last_seq,
            saved: Some((messages, appended)),
        }
    }
}

/// Writes of a task to store.
#[derive(Clone, Debug)]
pub struct PutWrites {
    /// Conversation of the thread.
    pub conversation: ConversationRef,
    /// The thread's own name.
    pub thread_name: Option<String>,
    /// Namespace of the checkpoint.
    pub namespace: CheckpointNamespace,
    /// Checkpoint, which may be stored later.
    pub checkpoint_id: CheckpointId,
    /// Writes, all of one task.
    pub writes: Vec<ChannelWrite>,
    /// Data of the writes.
    pub contents: Contents,
}

/// Checkpoint with its values and writes.
#[derive(Clone, Debug)]
pub struct CheckpointRecord {
    /// Namespace.
    pub namespace: String,
    /// Checkpoint with all its values.
    pub checkpoint: Checkpoint,
    /// Writes, in the order of path, task and index.
    pub writes: Vec<ChannelWrite>,
}

/// Checkpoints, and the data that fits into a response.
#[derive(Clone, Debug, Default)]
pub struct CheckpointPage {
    /// Checkpoints of the page, in the order of the query.
    pub records: Vec<CheckpointRecord>,
    /// Data by digest, up to [`MAX_CONTENT_BYTES`] at all places where the records refer to it, in the
    /// order of the first ones.
    pub contents: Vec<(ContentDigest, Bytes)>,
    /// Position after which the next page begins; `None` on the last page.
    pub next: Option<CheckpointPosition>,
}

/// Position of a checkpoint in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPosition {
    /// Number of the namespace.
    pub namespace: i64,
    /// Id of the checkpoint.
    pub id: Uuid,
}

/// Query for a page of checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointQuery {
    /// Conversation of the thread.
    pub conversation: ConversationRef,
    /// Namespace; `None` for all.
    pub namespace: Option<CheckpointNamespace>,
    /// Only this checkpoint.
    pub id: Option<CheckpointId>,
    /// Only checkpoints with ids below this one.
    pub before: Option<CheckpointId>,
    /// Members that the metadata must have.
    pub filter: serde_json::Map<String, serde_json::Value>,
    /// [`CheckpointPage::next`] of the previous page.
    pub after: Option<CheckpointPosition>,
    /// Maximum number of checkpoints.
    pub limit: u32,
}

/// Query for ancestors of a checkpoint.
#[derive(Clone, Debug)]
pub struct AncestorQuery {
    /// Conversation of the thread.
    pub conversation: ConversationRef,
    /// Namespace.
    pub namespace: CheckpointNamespace,
    /// Checkpoint; `None` for the latest one.
    pub id: Option<CheckpointId>,
    /// Channels whose values and writes are read.
    pub channels: Vec<String>,
}

/// Storage of checkpoints.
///
/// The contract, the errors and the cancel safety are those of all methods of
/// [`Store`](super::Store). All writes are idempotent.
#[async_trait]
pub trait CheckpointStore: Send + Sync + Debug {
    /// Stores a checkpoint in place of one with the same id, and its values, except those of
    /// versions that are stored. Appends the messages that the conversation does not contain. Ends
    /// within [`PUT_LIMIT`].
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::BaseVersionMissing`] if the base of a list is not stored or has fewer items, or
    ///   the value of a stored channel is missing.
    /// - [`StoreError::ContentMissing`] if referenced data is not stored.
    async fn put_checkpoint(&self, put: &PutCheckpoint) -> Result<StoredCheckpoint, StoreError>;

    /// Stores writes of a task. A stored write is kept, unless its index is negative.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::ContentMissing`] if referenced data is not stored.
    /// - [`StoreError::TooManyWrites`] if the checkpoint has the writes of [`MAX_WRITE_CALLS`] calls.
    async fn put_writes(&self, put: &PutWrites) -> Result<(), StoreError>;

    /// Stores data that later writes refer to.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn put_contents(
        &self,
        conversation: &ConversationRef,
        thread_name: Option<&str>,
        contents: &Contents,
    ) -> Result<(), StoreError>;

    /// Reads a checkpoint, the latest one without an id. Returns an empty page if there is none.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::CheckpointTooLarge`] if its values do not fit into a response.
    async fn checkpoint(
        &self,
        conversation: &ConversationRef,
        namespace: &CheckpointNamespace,
        id: Option<CheckpointId>,
    ) -> Result<CheckpointPage, StoreError>;

    /// Reads data, as much as fits into [`MAX_CONTENT_BYTES`], and at least one piece.
    ///
    /// # Errors
    ///
    /// - [`StoreError::NotFound`] if there is no such conversation.
    /// - [`StoreError::ContentMissing`] if the first digest is not stored.
    async fn checkpoint_contents(
        &self,
        conversation: &ConversationRef,
        digests: &[ContentDigest],
    ) -> Result<Vec<Bytes>, StoreError>;

    /// Reads a page of checkpoints, by namespace, latest first. It can be empty although more
    /// follow: a page examines a limited number of checkpoints.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::checkpoint`].
    async fn checkpoints(&self, query: &CheckpointQuery) -> Result<CheckpointPage, StoreError>;

    /// Reads ancestors of a checkpoint, the parent first, until every channel has had a value. The
    /// records have no state. [`CheckpointPage::next`] is the last ancestor if more follow.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::checkpoint`].
    async fn checkpoint_ancestors(
        &self,
        query: &AncestorQuery,
    ) -> Result<CheckpointPage, StoreError>;

    /// Copies all checkpoints of a thread to another conversation, which exists.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if one of the conversations does not exist.
    async fn copy_checkpoints(
        &self,
        source: &ConversationRef,
        target: &ConversationRef,
        thread_name: Option<&str>,
    ) -> Result<(), StoreError>;

    /// Deletes all checkpoints but the latest of each namespace and the ancestors that these need.
    /// Returns the number of deleted ones.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn prune_checkpoints(&self, conversation: &ConversationRef) -> Result<i64, StoreError>;

    /// Finds the conversations with checkpoints of runs, at most `limit`, after `after` in the order
    /// of their ids, of one user or of all.
    ///
    /// # Errors
    ///
    /// Fails only with the errors of all methods.
    async fn conversations_of_runs(
        &self,
        runs: &[ContentDigest],
        user: Option<&UserId>,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationId>, StoreError>;

    /// Deletes the checkpoints of runs in a thread. Returns their number.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::NotFound`] if there is no such conversation.
    async fn delete_runs(
        &self,
        conversation: &ConversationRef,
        runs: &[ContentDigest],
    ) -> Result<i64, StoreError>;
}
