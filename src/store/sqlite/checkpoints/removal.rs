//! Removals of checkpoints from threads, in short transactions, because all writes share one writer.
//!
//! The checkpoints are marked first, and disappear together when all of them are. Then their rows are
//! deleted, or when the store is opened again. Until the end, other writes to the thread wait.

use std::{collections::HashSet, time::Duration};

use sqlx::{Sqlite, SqliteConnection, Transaction, query, query_as, query_scalar, types::Json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    super::{SqlitePool, SqliteStore, connection, pending_removals::Step},
    rows,
};
use crate::{
    domain::ConversationRef,
    store::{
        StoreError,
        checkpoints::{
            CheckpointRows as _, Selection, selected, unneeded_contents, unneeded_values,
        },
        operation_error::{BackendError, ErrorKind, OperationError},
        pool::Pooled,
    },
};

/// Number of checkpoints that one transaction marks.
const MARKS: usize = 200;

/// Number of rows that are deleted or changed between two looks at the time.
const BATCH: usize = 16;

/// Number of namespaces that are read together.
const NAMESPACES: u32 = 500;

/// Maximum time that a write waits for the removal from its thread, and time between two attempts.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Value of the column `state`.
const DECIDED: i64 = 1;

/// Cause of the error of a write that waits for a removal.
const PENDING: &str = "checkpoints of the thread are being removed";

const IS_PENDING: &str = "SELECT EXISTS (SELECT 1 FROM checkpoint_removals r \
    CROSS JOIN checkpoint_threads t ON t.id = r.thread_id WHERE t.conversation_id = $1)";

const BEGIN: &str = "INSERT INTO checkpoint_removals (thread_id, token) \
    VALUES ($1, randomblob(16)) RETURNING token";

const MARK: &str = "INSERT OR IGNORE INTO checkpoint_removed_states (namespace_id, id) \
    SELECT w.value ->> 0, unhex(w.value ->> 1) FROM json_each($1) w";

const DECIDE: &str = "UPDATE checkpoint_removals SET state = 1 WHERE thread_id = $1 AND token = $2";

const ABANDON: &str = "UPDATE checkpoint_removals SET state = 2 \
    WHERE thread_id = $1 AND token = $2 AND state = 0";

const ABANDON_ALL: &str = "UPDATE checkpoint_removals SET state = 2 WHERE state = 0";

const IS_CURRENT: &str =
    "SELECT EXISTS (SELECT 1 FROM checkpoint_removals r WHERE r.thread_id = $1 AND r.token = $2)";

const FIND: &str =
    "SELECT r.thread_id, r.token, r.state FROM checkpoint_removals r WHERE r.state > 0 LIMIT 1";

/// Checkpoints that remain, but not their parent. Parameter: $1 namespace.
const ORPHANS: &str = "SELECT c.id FROM checkpoint_states c WHERE c.namespace_id = $1 \
    AND EXISTS (SELECT 1 FROM checkpoint_removed_states x \
                WHERE x.namespace_id = c.namespace_id AND x.id = c.parent_id) \
    AND NOT EXISTS (SELECT 1 FROM checkpoint_removed_states x \
                    WHERE x.namespace_id = c.namespace_id AND x.id = c.id)";

const CLEAR_PARENTS: &str = "UPDATE checkpoint_states SET parent_id = NULL WHERE namespace_id = $1 \
    AND id IN (SELECT unhex(w.value) FROM json_each($2) w)";

/// Parameters: $1 thread, $2 namespace to begin with.
const FIND_MARKED: &str = "SELECT x.namespace_id, x.id FROM checkpoint_namespaces n \
    CROSS JOIN checkpoint_removed_states x ON x.namespace_id = n.id \
    WHERE n.thread_id = $1 AND n.id >= $2 ORDER BY n.id LIMIT 16";

const DELETE_WRITES: &str = "DELETE FROM checkpoint_task_writes WHERE number IN (\
    SELECT w.number FROM checkpoint_task_writes w \
    WHERE w.namespace_id = $1 AND w.checkpoint_id = $2 LIMIT 16)";

const DELETE_CHECKPOINT: &str = "DELETE FROM checkpoint_states WHERE namespace_id = $1 AND id = $2";

const DELETE_MARK: &str =
    "DELETE FROM checkpoint_removed_states WHERE namespace_id = $1 AND id = $2";

const DELETE_VALUES: &str = "DELETE FROM checkpoint_values WHERE namespace_id = $1 \
    AND key IN (SELECT unhex(w.value) FROM json_each($2) w)";

const DELETE_CONTENT: &str = "DELETE FROM checkpoint_contents WHERE thread_id = $1 AND digest = $2";

const END: &str = "DELETE FROM checkpoint_removals WHERE thread_id = $1 AND token = $2";

/// Removal of a thread.
#[derive(Clone)]
struct Removal {
    thread: i64,
    token: Vec<u8>,
}

/// Namespace and id of a checkpoint, or key of a value.
type NamespaceKey = (i64, Uuid);

impl SqliteStore {
    /// Waits until no checkpoints are being removed from a thread.
    pub(super) async fn wait_for_removal(
        &self,
        conversation: &ConversationRef,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        loop {
            if Instant::now() > deadline {
                return Err(pending().into_read_error());
            }
            let read = self.read_checkpoints(async |rows| is_pending(rows, conversation).await);
            if !read.await? {
                return Ok(());
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

/// Runs statements that write to a thread in a transaction, when no checkpoints are being removed from
/// it.
macro_rules! write_to_thread {
    ($store:expr, $conversation:expr, $statements:expr) => {{
        use $crate::store::sqlite::checkpoints::removal;
        let deadline = tokio::time::Instant::now() + removal::MAX_WAIT;
        loop {
            let written = $store.write_checkpoints($statements).await;
            if !removal::is_rejected(&written) {
                break written;
            }
            $store.wait_for_removal($conversation, deadline).await?;
        }
    }};
}
pub(super) use write_to_thread;

/// Rejects a write to a thread from which checkpoints are being removed.
pub(super) async fn reject_pending(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<(), OperationError> {
    if is_pending(connection, conversation).await? {
        return Err(pending().into());
    }
    Ok(())
}

/// Whether a write was rejected by [`reject_pending`].
pub(super) fn is_rejected<T>(written: &Result<T, StoreError>) -> bool {
    matches!(written, Err(StoreError::Unavailable(cause)) if cause.to_string() == PENDING)
}

fn pending() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, PENDING)
}

async fn is_pending(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<bool, OperationError> {
    let id = conversation.id.as_uuid().hyphenated();
    let pending = query_scalar(IS_PENDING).bind(id);
    Ok(pending.fetch_one(connection).await?)
}

/// Deletes the selected checkpoints, and what only they needed. Returns their number.
pub(super) async fn remove(
    store: &SqliteStore,
    conversation: &ConversationRef,
    selection: &Selection,
) -> Result<i64, StoreError> {
    let begun = write_to_thread!(store, conversation, async |connection| {
        begin(connection, conversation).await
    });
    let Some(removal) = begun? else {
        return Ok(0);
    };
    let marked = mark(store, &removal, selection).await;
    if marked.is_err() {
        // If this fails, too, the next start does it.
        let _ = store
            .write_checkpoints(async |connection| {
                let abandoned = query(ABANDON).bind(removal.thread).bind(&removal.token);
                abandoned.execute(connection).await?;
                Ok(())
            })
            .await;
    }
    store.sweeper.sweep_removals().await;
    marked
}

async fn begin(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<Option<Removal>, OperationError> {
    let place = connection.lock(conversation, "").await?;
    let Some(thread) = place.ok_or(StoreError::NotFound)?.thread else {
        return Ok(None);
    };
    let token = query_scalar(BEGIN).bind(thread);
    let token = token.fetch_one(connection).await?;
    Ok(Some(Removal { thread, token }))
}

/// Marks the selected checkpoints, and makes them disappear. Returns their number.
async fn mark(
    store: &SqliteStore,
    removal: &Removal,
    selection: &Selection,
) -> Result<i64, StoreError> {
    let selected = store.read_checkpoints(async |rows| {
        let mut found: Vec<NamespaceKey> = Vec::new();
        for namespace in namespaces(rows, removal.thread).await? {
            let ids = selected(rows, namespace, selection).await?;
            found.extend(ids.into_iter().map(|id| (namespace, id)));
        }
        Ok(found)
    });
    let selected = selected.await?;
    for batch in selected.chunks(MARKS) {
        let marks: Vec<(i64, String)> = batch
            .iter()
            .map(|(namespace, id)| (*namespace, id.simple().to_string()))
            .collect();
        let marked = store.write_checkpoints(async |connection| {
            require_current(connection, removal).await?;
            query(MARK).bind(Json(&marks)).execute(connection).await?;
            Ok(())
        });
        marked.await?;
    }
    let decided = store.write_checkpoints(async |connection| {
        require_current(connection, removal).await?;
        let decided = query(DECIDE).bind(removal.thread).bind(&removal.token);
        decided.execute(connection).await?;
        Ok(())
    });
    decided.await?;
    Ok(i64::try_from(selected.len()).unwrap_or(i64::MAX))
}

async fn namespaces(rows: &mut SqliteConnection, thread: i64) -> Result<Vec<i64>, OperationError> {
    let mut found = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or(0);
        let page = rows.namespaces(thread, after, NAMESPACES).await?;
        if page.is_empty() {
            return Ok(found);
        }
        found.extend(page.into_iter().map(|(number, _)| number));
    }
}

async fn require_current(
    connection: &mut SqliteConnection,
    removal: &Removal,
) -> Result<(), OperationError> {
    if is_current(connection, removal).await? {
        return Ok(());
    }
    let cause = "the thread was deleted, or another process has ended the removal from it";
    Err(BackendError::new(ErrorKind::Retryable, cause).into())
}

async fn is_current(
    connection: &mut SqliteConnection,
    removal: &Removal,
) -> Result<bool, OperationError> {
    let current = query_scalar(IS_CURRENT)
        .bind(removal.thread)
        .bind(&removal.token);
    Ok(current.fetch_one(connection).await?)
}

/// Abandons the removals whose process has ended before all checkpoints were marked.
pub(in super::super) async fn abandon(writer: &SqlitePool) -> Result<(), OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let abandoned = query(ABANDON_ALL).execute(&mut *transaction).await;
    let abandoned = abandoned.map(|_| ()).map_err(OperationError::from);
    connection::end(transaction, abandoned).await
}

/// Deletes the rows of removed checkpoints.
pub(in super::super) async fn sweep(
    writer: &SqlitePool,
    readers: &SqlitePool,
) -> Result<(), OperationError> {
    loop {
        let mut reader = connection::reader(readers).await?;
        let found = query_as(FIND).fetch_optional(&mut *reader).await?;
        let Some((thread, token, state)): Option<(i64, Vec<u8>, i64)> = found else {
            return Ok(());
        };
        let sweep = Sweep {
            writer,
            removal: Removal { thread, token },
            is_decided: state == DECIDED,
        };
        sweep.run(&mut reader).await?;
    }
}

/// Deletion of the rows of a removal. What is deleted is found by reads, since other writes to the
/// thread wait for the end.
struct Sweep<'w> {
    writer: &'w SqlitePool,
    removal: Removal,
    is_decided: bool,
}

type WriteTransaction = Pooled<Transaction<'static, Sqlite>>;

impl Sweep<'_> {
    async fn run(&self, reader: &mut SqliteConnection) -> Result<(), OperationError> {
        let thread = self.removal.thread;
        if self.is_decided {
            // Before the parents are deleted: a reader does not see references to them.
            for (namespace, ids) in orphans(reader, thread).await? {
                self.for_each(CLEAR_PARENTS, namespace, &ids).await?;
            }
        }
        let mut namespace = Some(0);
        while let Some(first) = namespace {
            namespace = self.delete_marked(first).await?;
        }
        if self.is_decided {
            let mut kept = HashSet::new();
            for namespace in namespaces(reader, thread).await? {
                let keys = unneeded_values(reader, namespace, &mut kept).await?;
                self.for_each(DELETE_VALUES, namespace, &keys).await?;
            }
            let digests = unneeded_contents(reader, thread, &kept).await?;
            self.delete_contents(&digests).await?;
        }
        let Some(mut transaction) = self.begin().await? else {
            return Ok(());
        };
        let ended = query(END).bind(thread).bind(&self.removal.token);
        let ended = ended.execute(&mut *transaction).await;
        let ended = ended.map(|_| ()).map_err(OperationError::from);
        connection::end(transaction, ended).await
    }

    /// Begins a transaction; `None` if another sweep has ended the removal.
    async fn begin(&self) -> Result<Option<WriteTransaction>, OperationError> {
        let mut transaction = connection::begin(self.writer).await?;
        match is_current(&mut transaction, &self.removal).await {
            Ok(true) => Ok(Some(transaction)),
            found => connection::end(transaction, found).await.map(|_| None),
        }
    }

    /// Executes a statement on rows of a namespace, as many in a transaction as its time permits.
    async fn for_each(
        &self,
        statement: &'static str,
        namespace: i64,
        keys: &[Uuid],
    ) -> Result<(), OperationError> {
        let mut batches = keys.chunks(BATCH).peekable();
        while batches.peek().is_some() {
            let Some(mut transaction) = self.begin().await? else {
                return Ok(());
            };
            let changed = async {
                let step = Step::begin();
                while !step.is_over()
                    && let Some(keys) = batches.next()
                {
                    let changed = query(statement).bind(namespace).bind(rows::list(keys));
                    changed.execute(&mut *transaction).await?;
                }
                Ok(())
            };
            let changed = changed.await;
            connection::end(transaction, changed).await?;
        }
        Ok(())
    }

    async fn delete_contents(&self, digests: &[Uuid]) -> Result<(), OperationError> {
        let mut digests = digests.iter().peekable();
        while digests.peek().is_some() {
            let Some(mut transaction) = self.begin().await? else {
                return Ok(());
            };
            let deleted = async {
                let step = Step::begin();
                // One at a time, because it can have a megabyte.
                while !step.is_over()
                    && let Some(digest) = digests.next()
                {
                    let deleted = query(DELETE_CONTENT).bind(self.removal.thread);
                    let deleted = deleted.bind(digest);
                    deleted.execute(&mut *transaction).await?;
                }
                Ok(())
            };
            let deleted = deleted.await;
            connection::end(transaction, deleted).await?;
        }
        Ok(())
    }

    /// Deletes marked checkpoints with their writes and marks, or only the marks, from a namespace on
    /// as far as one transaction may. Returns the namespace to continue with; `None` if none is left.
    async fn delete_marked(&self, first: i64) -> Result<Option<i64>, OperationError> {
        let Some(mut transaction) = self.begin().await? else {
            return Ok(None);
        };
        let left = delete_some(&mut transaction, self, first).await;
        connection::end(transaction, left).await
    }
}

/// Executes the statements of [`Sweep::delete_marked`] in its transaction, until its time has passed.
async fn delete_some(
    connection: &mut SqliteConnection,
    sweep: &Sweep<'_>,
    mut namespace: i64,
) -> Result<Option<i64>, OperationError> {
    let step = Step::begin();
    loop {
        let marked: Vec<NamespaceKey> = query_as(FIND_MARKED)
            .bind(sweep.removal.thread)
            .bind(namespace)
            .fetch_all(&mut *connection)
            .await?;
        if marked.is_empty() {
            return Ok(None);
        }
        for (number, id) in marked {
            namespace = number;
            if sweep.is_decided {
                while delete(connection, DELETE_WRITES, (number, id)).await? {
                    if step.is_over() {
                        return Ok(Some(namespace));
                    }
                }
                delete(connection, DELETE_CHECKPOINT, (number, id)).await?;
            }
            delete(connection, DELETE_MARK, (number, id)).await?;
            if step.is_over() {
                return Ok(Some(namespace));
            }
        }
    }
}

/// Deletes rows of a checkpoint. Returns whether there were any.
async fn delete(
    connection: &mut SqliteConnection,
    statement: &'static str,
    (namespace, id): NamespaceKey,
) -> Result<bool, OperationError> {
    let deleted = query(statement).bind(namespace).bind(id);
    Ok(deleted.execute(connection).await?.rows_affected() > 0)
}

/// Checkpoints of each namespace whose parent is marked.
async fn orphans(
    connection: &mut SqliteConnection,
    thread: i64,
) -> Result<Vec<(i64, Vec<Uuid>)>, OperationError> {
    let mut found = Vec::new();
    for namespace in namespaces(connection, thread).await? {
        let ids = query_scalar(ORPHANS).bind(namespace);
        let ids: Vec<Uuid> = ids.fetch_all(&mut *connection).await?;
        found.push((namespace, ids));
    }
    Ok(found)
}
