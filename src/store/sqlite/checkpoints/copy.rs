//! Copies of threads. The rows of the source are read from one state of the database, and are written
//! in short transactions, because all writes share one writer. Until the copy is complete, no
//! conversation has it.

use sqlx::{Connection as _, SqliteConnection, query, query_as, query_scalar, types::Json};

use super::{super::SqliteStore, super::connection, statements};
use crate::{
    domain::ConversationRef,
    store::{
        ReusedKey, StoreError,
        checkpoints::CheckpointRows as _,
        operation_error::{BackendError, ErrorKind, OperationError},
    },
};

/// Number of rows that are read together.
const BATCH: u32 = 100;

/// Upper bounds on the rows of a transaction, and on their bytes unless it has one row.
const MAX_ROWS: usize = 64;
const MAX_BYTES: usize = 256 << 10;

const STATES: &str = "SELECT c.id, c.parent_id, c.run_id, c.body FROM checkpoint_states c \
    WHERE c.namespace_id = $1 AND c.id > $2 ORDER BY c.id LIMIT CAST($3 AS INTEGER)";

const WRITES: &str = "SELECT w.number FROM checkpoint_task_writes w \
    WHERE w.namespace_id = $1 ORDER BY w.number";

const WRITES_OF: &str = "SELECT w.checkpoint_id, w.digest, w.body FROM json_each($1) n \
    CROSS JOIN checkpoint_task_writes w ON w.number = n.value ORDER BY w.number";

const VALUES: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
    FROM checkpoint_values v WHERE v.namespace_id = $1 AND v.key > $2 \
    ORDER BY v.key LIMIT CAST($3 AS INTEGER)";

const CONTENTS: &str = "SELECT d.digest, d.size, d.data FROM checkpoint_contents d \
    WHERE d.thread_id = $1 AND d.digest > $2 ORDER BY d.digest LIMIT 1";

const BEGIN: &str = "INSERT INTO checkpoint_threads (conversation_id, name) \
    VALUES ('unfinished ' || hex(randomblob(16)), $1) RETURNING id, conversation_id";

const IS_UNFINISHED: &str =
    "SELECT EXISTS (SELECT 1 FROM checkpoint_threads t WHERE t.id = $1 AND t.conversation_id = $2)";

const FINISH: &str =
    "UPDATE checkpoint_threads SET conversation_id = $3 WHERE id = $1 AND conversation_id = $2";

const ABANDON: &str =
    "UPDATE checkpoint_threads SET conversation_id = 'removed ' || id WHERE conversation_id = $1";

type Key = Vec<u8>;
type StateRow = (Key, Option<Key>, Option<Key>, Vec<u8>);
type WritesRow = (Key, Key, Vec<u8>);
type ValueRow = (
    Key,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<Vec<u8>>,
    Vec<u8>,
);
type ContentRow = (Key, i64, Vec<u8>);

/// Row of a copy.
enum Row {
    /// Namespace, to which the following rows belong.
    Namespace(String),
    State(StateRow),
    Writes(WritesRow),
    Value(ValueRow),
    Content(ContentRow),
}

impl Row {
    fn bytes(&self) -> usize {
        match self {
            Self::Namespace(name) => name.len(),
            Self::State((.., body)) | Self::Writes((.., body)) | Self::Content((.., body)) => {
                body.len()
            }
            Self::Value((.., prefix, body)) => prefix.as_ref().map_or(0, Vec::len) + body.len(),
        }
    }
}

/// Copies a thread. See
/// [`CheckpointStore::copy_checkpoints`](crate::store::CheckpointStore::copy_checkpoints).
pub(super) async fn copy_thread(
    store: &SqliteStore,
    source: &ConversationRef,
    target: &ConversationRef,
    thread_name: Option<&str>,
) -> Result<(), StoreError> {
    let mut reader = super::super::read(connection::reader(&store.readers)).await?;
    let snapshot = async { Ok(reader.begin().await?) };
    let mut snapshot = super::super::read(snapshot).await?;
    let places = async {
        let from = snapshot.find(source, "").await?;
        let to = snapshot.find(target, "").await?;
        let (Some(from), Some(to)) = (from, to) else {
            return Err(StoreError::NotFound.into());
        };
        // The sequences of two threads have the same numbers, and cannot be mixed.
        if to.thread.is_some() {
            return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
        }
        Ok(from.thread)
    };
    let Some(thread) = super::super::read(places).await? else {
        return Ok(());
    };
    let begin = store.write_checkpoints(async |connection| {
        let begun = query_as(BEGIN).bind(thread_name);
        Ok(begun.fetch_one(connection).await?)
    });
    let (copy_thread, unfinished): (i64, String) = begin.await?;
    let mut copy = Copy {
        store,
        unfinished: &unfinished,
        thread: copy_thread,
        namespace: 0,
        rows: Vec::new(),
        bytes: 0,
    };
    let copied = async {
        copy.read(&mut snapshot, thread).await?;
        copy.flush().await?;
        copy.finish(target).await
    };
    let copied = copied.await;
    if copied.is_err() {
        // If this fails, too, the next start removes the copy.
        let _ = store
            .write_checkpoints(async |connection| {
                query(ABANDON).bind(&unfinished).execute(connection).await?;
                Ok(())
            })
            .await;
        store.sweep_threads().await;
    }
    copied
}

/// Copy that is not complete.
struct Copy<'s> {
    store: &'s SqliteStore,
    /// Name in place of the conversation's id.
    unfinished: &'s str,
    thread: i64,
    /// Namespace of the last row.
    namespace: i64,
    /// Rows that are not written yet.
    rows: Vec<Row>,
    bytes: usize,
}

impl Copy<'_> {
    /// Adds all rows of a thread.
    async fn read(&mut self, source: &mut SqliteConnection, thread: i64) -> Result<(), StoreError> {
        let mut after = 0;
        loop {
            let found = source.namespaces(thread, after, BATCH);
            let found = super::super::read(found).await?;
            if found.is_empty() {
                break;
            }
            for (number, name) in found {
                after = number;
                self.add(Row::Namespace(name)).await?;
                self.read_namespace(source, number).await?;
            }
        }
        let mut after = Key::new();
        loop {
            let found = query_as(CONTENTS).bind(thread).bind(&after);
            let found = async { Ok(found.fetch_optional(&mut *source).await?) };
            let found: Option<ContentRow> = super::super::read(found).await?;
            let Some(row) = found else {
                return Ok(());
            };
            after.clone_from(&row.0);
            self.add(Row::Content(row)).await?;
        }
    }

    async fn read_namespace(
        &mut self,
        source: &mut SqliteConnection,
        namespace: i64,
    ) -> Result<(), StoreError> {
        let mut after = Key::new();
        loop {
            let found = query_as(STATES).bind(namespace).bind(&after).bind(BATCH);
            let found = async { Ok(found.fetch_all(&mut *source).await?) };
            let found: Vec<StateRow> = super::super::read(found).await?;
            let Some(last) = found.last() else { break };
            after.clone_from(&last.0);
            for row in found {
                self.add(Row::State(row)).await?;
            }
        }
        let numbers = async {
            Ok(query_scalar(WRITES)
                .bind(namespace)
                .fetch_all(&mut *source)
                .await?)
        };
        let numbers: Vec<i64> = super::super::read(numbers).await?;
        for numbers in numbers.chunks(BATCH as usize) {
            let found = query_as(WRITES_OF).bind(Json(numbers));
            let found = async { Ok(found.fetch_all(&mut *source).await?) };
            let found: Vec<WritesRow> = super::super::read(found).await?;
            for row in found {
                self.add(Row::Writes(row)).await?;
            }
        }
        let mut after = Key::new();
        loop {
            let found = query_as(VALUES).bind(namespace).bind(&after).bind(BATCH);
            let found = async { Ok(found.fetch_all(&mut *source).await?) };
            let found: Vec<ValueRow> = super::super::read(found).await?;
            let Some(last) = found.last() else { break };
            after.clone_from(&last.0);
            for row in found {
                self.add(Row::Value(row)).await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, row: Row) -> Result<(), StoreError> {
        if self.rows.len() == MAX_ROWS || self.bytes + row.bytes() > MAX_BYTES {
            self.flush().await?;
        }
        self.bytes += row.bytes();
        self.rows.push(row);
        Ok(())
    }

    /// Writes the rows that were added, in a transaction.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let (thread, unfinished) = (self.thread, self.unfinished);
        let mut namespace = self.namespace;
        let written = self.store.write_checkpoints(async |connection| {
            let is_unfinished: bool = query_scalar(IS_UNFINISHED)
                .bind(thread)
                .bind(unfinished)
                .fetch_one(&mut *connection)
                .await?;
            if !is_unfinished {
                return Err(removed_meanwhile());
            }
            for row in rows {
                insert(connection, thread, &mut namespace, row).await?;
            }
            Ok(namespace)
        });
        self.namespace = written.await?;
        Ok(())
    }

    /// Makes the copy the thread of its conversation.
    async fn finish(&self, target: &ConversationRef) -> Result<(), StoreError> {
        let finished = self.store.write_checkpoints(async |connection| {
            let place = connection.find(target, "").await?;
            if place.ok_or(StoreError::NotFound)?.thread.is_some() {
                return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
            }
            let finished = query(FINISH)
                .bind(self.thread)
                .bind(self.unfinished)
                .bind(target.id.as_uuid().hyphenated())
                .execute(connection)
                .await?;
            if finished.rows_affected() == 0 {
                return Err(removed_meanwhile());
            }
            Ok(())
        });
        finished.await
    }
}

async fn insert(
    connection: &mut SqliteConnection,
    thread: i64,
    namespace: &mut i64,
    row: Row,
) -> Result<(), OperationError> {
    let inserted = match row {
        Row::Namespace(name) => {
            *namespace = connection.add_namespace(thread, &name).await?;
            return Ok(());
        }
        Row::State((id, parent, run, body)) => query(statements::PUT_CHECKPOINT)
            .bind(*namespace)
            .bind(id)
            .bind(parent)
            .bind(run)
            .bind(body),
        Row::Writes((checkpoint, digest, body)) => query(statements::PUT_WRITES)
            .bind(*namespace)
            .bind(checkpoint)
            .bind(digest)
            .bind(body),
        Row::Value((key, sequence, first, last, prefix, body)) => query(statements::ADD_VALUE)
            .bind(*namespace)
            .bind(key)
            .bind(sequence)
            .bind(first)
            .bind(last)
            .bind(prefix)
            .bind(body),
        Row::Content((digest, size, data)) => query(statements::ADD_CONTENT)
            .bind(thread)
            .bind(digest)
            .bind(size)
            .bind(data),
    };
    inserted.execute(connection).await?;
    Ok(())
}

/// Error of a copy that another process has taken for one of an earlier process. A repetition
/// succeeds.
fn removed_meanwhile() -> OperationError {
    let cause = "another process has removed the unfinished copy of a thread";
    BackendError::new(ErrorKind::Retryable, cause).into()
}
