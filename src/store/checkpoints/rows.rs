use std::future::Future;

use bytes::Bytes;
use uuid::Uuid;

use crate::{
    domain::{ConversationRef, NewMessage, Title},
    store::{Append, Appended, Invalidation, operation_error::OperationError},
};
use chrono::{DateTime, Utc};

type Outcome<T> = Result<T, OperationError>;

/// Numbers under which the rows of a thread are stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct ThreadPlace {
    /// Number of the conversation's last message.
    pub(in crate::store) last_seq: i64,
    /// Number of the thread; `None` if it has none yet.
    pub(in crate::store) thread: Option<i64>,
    /// Number of the namespace; `None` if it has none yet.
    pub(in crate::store) namespace: Option<i64>,
    /// Number after which the conversation's own messages begin.
    pub(in crate::store) own_after: i64,
}

/// Key of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct CheckpointKey {
    pub(in crate::store) namespace: i64,
    pub(in crate::store) id: Uuid,
}

/// Stored checkpoint.
#[derive(Debug)]
pub(in crate::store) struct CheckpointRow {
    pub(in crate::store) key: CheckpointKey,
    pub(in crate::store) parent_id: Option<Uuid>,
    pub(in crate::store) body: Vec<u8>,
}

/// Row of a checkpoint, which replaces a row with the same id.
#[derive(Debug)]
pub(in crate::store) struct NewCheckpointRow {
    pub(in crate::store) id: Uuid,
    pub(in crate::store) parent_id: Option<Uuid>,
    pub(in crate::store) run_id: Option<Uuid>,
    pub(in crate::store) body: Vec<u8>,
}

/// Writes of one call to store.
#[derive(Debug)]
pub(in crate::store) struct NewWritesRow {
    pub(in crate::store) checkpoint_id: Uuid,
    pub(in crate::store) digest: Uuid,
    /// Whether an equal call that was stored before is moved to the end, since these writes replace
    /// those of later calls.
    pub(in crate::store) replaces: bool,
    pub(in crate::store) body: Vec<u8>,
}

/// Stored value of a version.
#[derive(Clone, Debug)]
pub(in crate::store) struct ValueRow {
    pub(in crate::store) key: Uuid,
    /// `None` for a value that is no list.
    pub(in crate::store) sequence: Option<SequenceRow>,
    pub(in crate::store) prefix: Option<Vec<u8>>,
    pub(in crate::store) body: Vec<u8>,
}

/// Stored value of a version without its data.
#[derive(Clone, Debug)]
pub(in crate::store) struct ValueHead {
    pub(in crate::store) key: Uuid,
    /// `None` for a value that is no list.
    pub(in crate::store) sequence: Option<SequenceRow>,
    pub(in crate::store) prefix: Option<Vec<u8>>,
    /// Whether another version continues its sequence.
    pub(in crate::store) is_continued: bool,
}

/// What a namespace has of the values that a put adds or continues.
#[derive(Clone, Debug)]
pub(in crate::store) struct Heads {
    pub(in crate::store) heads: Vec<ValueHead>,
    /// Highest number of a sequence; 0 if there is none.
    pub(in crate::store) last_sequence: i32,
}

/// Columns of a [`CheckpointRow`] without its namespace.
pub(in crate::store) type CheckpointColumns = (Uuid, Option<Uuid>, Vec<u8>);

impl CheckpointRow {
    pub(in crate::store) fn new(namespace: i64, (id, parent_id, body): CheckpointColumns) -> Self {
        Self {
            key: CheckpointKey { namespace, id },
            parent_id,
            body,
        }
    }
}

/// Columns of a [`ValueRow`].
pub(in crate::store) type ValueColumns = (
    Uuid,
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<Vec<u8>>,
    Vec<u8>,
);

impl ValueRow {
    pub(in crate::store) fn new((key, sequence, first, last, prefix, body): ValueColumns) -> Self {
        Self {
            key,
            sequence: SequenceRow::of_columns(sequence, first, last),
            prefix,
            body,
        }
    }
}

/// Columns of a [`ValueHead`].
pub(in crate::store) type HeadColumns = (
    Uuid,
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<Vec<u8>>,
    bool,
);

impl ValueHead {
    pub(in crate::store) fn new(
        (key, sequence, first, last, prefix, is_continued): HeadColumns,
    ) -> Self {
        Self {
            key,
            sequence: SequenceRow::of_columns(sequence, first, last),
            prefix,
            is_continued,
        }
    }
}

/// Part of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct SequenceRow {
    pub(in crate::store) sequence: i32,
    pub(in crate::store) first: i32,
    pub(in crate::store) last: i32,
}

impl SequenceRow {
    fn of_columns(sequence: Option<i32>, first: Option<i32>, last: Option<i32>) -> Option<Self> {
        Some(Self {
            sequence: sequence?,
            first: first?,
            last: last?,
        })
    }
}

/// Value of a version to store.
#[derive(Debug)]
pub(in crate::store) struct NewValueRow {
    pub(in crate::store) key: Uuid,
    pub(in crate::store) sequence: Option<SequenceRow>,
    pub(in crate::store) prefix: Option<Vec<u8>>,
    pub(in crate::store) body: Vec<u8>,
}

impl NewValueRow {
    /// Head of a list that ends its sequence, once the row is stored. A row without items of its own
    /// ends within a sequence.
    pub(in crate::store) fn head(&self) -> Option<ValueHead> {
        let sequence = self.sequence.filter(|row| row.last > row.first)?;
        Some(ValueHead {
            key: self.key,
            sequence: Some(sequence),
            prefix: self.prefix.clone(),
            is_continued: false,
        })
    }
}

/// Data to store, compressed.
#[derive(Debug)]
pub(in crate::store) struct Content {
    pub(in crate::store) digest: Uuid,
    pub(in crate::store) size: i32,
    pub(in crate::store) data: Vec<u8>,
}

/// What a put is planned with outside of a transaction.
#[derive(Clone, Debug)]
pub(in crate::store) struct ThreadPlan {
    /// Number of the thread.
    pub(in crate::store) thread: i64,
    /// Number of removals from the thread.
    pub(in crate::store) removals: i64,
    /// Number of the namespace.
    pub(in crate::store) namespace: i64,
    /// Number after which the conversation's own messages begin.
    pub(in crate::store) own_after: i64,
    pub(in crate::store) stored: Heads,
}

/// Rows of a put.
#[derive(Debug)]
pub(in crate::store) struct PlannedPut {
    pub(in crate::store) contents: Vec<Content>,
    pub(in crate::store) values: Vec<NewValueRow>,
    pub(in crate::store) checkpoint: NewCheckpointRow,
    pub(in crate::store) writes: Vec<NewWritesRow>,
}

/// Messages to append with a checkpoint.
#[derive(Debug)]
pub(in crate::store) struct NewMessages {
    pub(in crate::store) conversation: ConversationRef,
    pub(in crate::store) messages: Vec<NewMessage>,
    pub(in crate::store) title: Option<(Title, usize)>,
    pub(in crate::store) at: DateTime<Utc>,
}

/// Rows of checkpoints on a connection to a database. Writes run in a transaction that has locked
/// the conversation by [`Self::lock`].
pub(in crate::store) trait CheckpointRows: Send {
    /// Locks the conversation against other writes, and finds a thread and its namespace. `None` if
    /// there is no such conversation.
    fn lock(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> impl Future<Output = Outcome<Option<ThreadPlace>>> + Send;

    /// Finds a thread and its namespace. `None` if there is no such conversation.
    fn find(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> impl Future<Output = Outcome<Option<ThreadPlace>>> + Send;

    fn add_thread(
        &mut self,
        conversation: Uuid,
        name: Option<&str>,
    ) -> impl Future<Output = Outcome<i64>> + Send;

    fn add_namespace(
        &mut self,
        thread: i64,
        namespace: &str,
    ) -> impl Future<Output = Outcome<i64>> + Send;

    /// Reads the namespaces of a thread with numbers above `after`, in ascending order.
    fn namespaces(
        &mut self,
        thread: i64,
        after: i64,
        limit: u32,
    ) -> impl Future<Output = Outcome<Vec<(i64, String)>>> + Send;

    /// Stores the data that is not stored yet.
    fn add_contents(
        &mut self,
        thread: i64,
        contents: Vec<Content>,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Counts the stored ones of these digests, which are distinct.
    fn count_contents(
        &mut self,
        thread: i64,
        digests: &[Uuid],
    ) -> impl Future<Output = Outcome<i64>> + Send;

    /// Reads data in the order of its digests, which are distinct: as much as fits into `max_bytes`
    /// uncompressed, and at least one.
    fn contents(
        &mut self,
        thread: i64,
        digests: &[Uuid],
        max_bytes: i64,
    ) -> impl Future<Output = Outcome<Vec<Content>>> + Send;

    fn values(
        &mut self,
        namespace: i64,
        keys: &[Uuid],
    ) -> impl Future<Output = Outcome<Vec<ValueRow>>> + Send;

    /// Reads what the rows of values are planned with.
    fn heads(
        &mut self,
        namespace: i64,
        keys: &[Uuid],
    ) -> impl Future<Output = Outcome<Heads>> + Send;

    /// Reads the rows of a sequence that contain its first `items`, in their order.
    fn sequence(
        &mut self,
        namespace: i64,
        sequence: i32,
        items: i32,
    ) -> impl Future<Output = Outcome<Vec<(SequenceRow, Vec<u8>)>>> + Send;

    /// Stores values of versions that are not stored yet.
    fn add_values(
        &mut self,
        namespace: i64,
        values: Vec<NewValueRow>,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Stores a checkpoint in place of one with the same id.
    fn put_checkpoint(
        &mut self,
        namespace: i64,
        row: NewCheckpointRow,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Whether the writes are stored, or the checkpoint has those of fewer than `max` calls.
    fn admits_writes(
        &mut self,
        namespace: i64,
        row: &NewWritesRow,
        max: u32,
    ) -> impl Future<Output = Outcome<bool>> + Send;

    fn put_writes(
        &mut self,
        namespace: i64,
        row: NewWritesRow,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Reads a checkpoint, the one with the highest id if `id` is `None`.
    fn checkpoint(
        &mut self,
        namespace: i64,
        id: Option<Uuid>,
    ) -> impl Future<Output = Outcome<Option<CheckpointRow>>> + Send;

    /// Reads checkpoints of a namespace with ids below `before`, the highest first.
    fn checkpoints(
        &mut self,
        namespace: i64,
        before: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Outcome<Vec<CheckpointRow>>> + Send;

    /// Reads the bodies of the writes of a checkpoint, in the order of their numbers: at most
    /// `limit`, up to the one with which they exceed `max_bytes`.
    fn writes(
        &mut self,
        namespace: i64,
        checkpoint: Uuid,
        limit: u32,
        max_bytes: i64,
    ) -> impl Future<Output = Outcome<Vec<Vec<u8>>>> + Send;

    /// Finds messages by the id that each is stored under, and its own id. Returns both, and the number
    /// between them.
    fn messages(
        &mut self,
        ids: &[(Uuid, Uuid)],
    ) -> impl Future<Output = Outcome<Vec<(Uuid, i64, Uuid)>>> + Send;

    /// Reads the lineage of a conversation: ids under which messages are stored, the number before
    /// the first, and the last number.
    fn lineage(
        &mut self,
        conversation: Uuid,
    ) -> impl Future<Output = Outcome<Vec<(Uuid, i64, i64)>>> + Send;

    fn append(&mut self, new: NewMessages) -> impl Future<Output = Outcome<Appended>> + Send;

    /// Ids of the checkpoints of runs.
    fn checkpoints_of_runs(
        &mut self,
        namespace: i64,
        runs: &[Uuid],
    ) -> impl Future<Output = Outcome<Vec<Uuid>>> + Send;

    /// Reads the rows of all values, and of all writes, of a namespace in pages: those after a key.
    fn values_after(
        &mut self,
        namespace: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Outcome<Vec<ValueRow>>> + Send;

    /// Reads writes of a namespace in pages: those after a checkpoint and digest.
    fn writes_after(
        &mut self,
        namespace: i64,
        after: Option<(Uuid, Uuid)>,
        limit: u32,
    ) -> impl Future<Output = Outcome<Vec<(Uuid, Uuid, Vec<u8>)>>> + Send;

    /// Reads digests of a thread in pages: those after a digest, in ascending order.
    fn digests_after(
        &mut self,
        thread: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Outcome<Vec<Uuid>>> + Send;
}

impl NewMessages {
    /// The save of the messages.
    pub(in crate::store) fn into_append(self, invalidation: Invalidation) -> Append {
        Append {
            conversation: self.conversation,
            messages: self.messages,
            request: None,
            expected_last_seq: None,
            session_id: None,
            title: self.title,
            invalidation,
            at: self.at,
        }
    }
}

impl Content {
    /// Data as it was sent.
    pub(super) fn decoded(self) -> Outcome<Bytes> {
        super::encoding::decompress(self.data).map(Bytes::from)
    }
}
