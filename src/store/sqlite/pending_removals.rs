//! Removals of many messages and requests. All writes share one writer, so that a removal is divided
//! into short transactions. The first one takes the messages out of all conversations and records
//! their ranges, which are then deleted step by step, or when the store is opened again.

use std::{
    fs::{File, OpenOptions},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{SqliteConnection, query, query_as, query_scalar};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    SqlitePool,
    checkpoints::{removal, removed_threads},
    connection,
    lineage::LineageRange,
    sql,
};
use crate::store::operation_error::OperationError;

/// Time after which a transaction deletes or inserts no further messages.
const STEP_TIME: Duration = Duration::from_millis(4);

/// Number of messages that are deleted or inserted between two looks at the time.
pub(super) const BATCH: i64 = 16;

/// Maximum time that a removal waits until its messages are deleted. They are not visible before.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Time between two attempts of a step that failed, for example while the disk is full.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Number of failures after which the messages are left for the next start.
const MAX_FAILURES: u32 = 60;

/// Finds the last message of a batch. Parameters: $1 source, $2 and $3 the range, $4 limit.
const BATCH_END: &str = "SELECT max(b.seq) FROM (SELECT m.seq FROM messages m \
    WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3 \
    ORDER BY m.seq LIMIT CAST($4 AS INTEGER)) AS b";

/// Deletes some requests of a deleted conversation. Parameter: $1 conversation.
const DELETE_REQUESTS: &str = "DELETE FROM requests WHERE conversation_id = $1 AND request_id IN ( \
    SELECT r.request_id FROM requests r WHERE r.conversation_id = $1 LIMIT 64)";

/// Records a range. Parameters: $1 source, $2 and $3 the range, $4 whether an import owns it.
const RECORD: &str = "INSERT INTO pending_removals (source_id, after_seq, upto_seq, is_import) \
    VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";

/// Parameters: $1 source, $2 and $3 the range.
const COMPLETE: &str =
    "DELETE FROM pending_removals WHERE source_id = $1 AND after_seq = $2 AND upto_seq = $3";

/// Returns whether a range is recorded. Parameters: $1 source, $2 and $3 the range.
const IS_RECORDED: &str = "SELECT EXISTS (SELECT 1 FROM pending_removals \
    WHERE source_id = $1 AND after_seq = $2 AND upto_seq = $3)";

const READ: &str = "SELECT source_id, after_seq, upto_seq, is_import FROM pending_removals";

/// Recorded range, and whether an import may own it.
pub(super) type Leftover = (Hyphenated, i64, i64, bool);

/// Reads all recorded ranges.
pub(super) async fn read(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Leftover>> {
    query_as(READ).fetch_all(connection).await
}

/// Time that a transaction has for messages.
pub(super) struct Step(Instant);

impl Step {
    /// Begins a step, whose time runs from now on.
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Returns whether the transaction must end.
    pub(super) fn is_over(&self) -> bool {
        self.0.elapsed() > STEP_TIME
    }
}

/// Deletes the messages of ranges that no conversation contains, as far as one transaction may.
/// Records the ranges that remain, and returns them.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    ranges: Vec<LineageRange>,
) -> Result<Vec<LineageRange>, OperationError> {
    let step = Step::begin();
    let mut remaining = Vec::new();
    for range in ranges {
        let left = if step.is_over() {
            Some(range)
        } else {
            delete_some(connection, range, &step).await?
        };
        if let Some(left) = left {
            record(connection, left, false).await?;
            remaining.push(left);
        }
    }
    Ok(remaining)
}

/// Deletes the requests of a deleted conversation, as far as one transaction may. Records that some
/// remain, and returns the record.
pub(super) async fn remove_requests(
    connection: &mut SqliteConnection,
    conversation: Hyphenated,
) -> Result<Option<LineageRange>, OperationError> {
    if delete_requests(connection, conversation, &Step::begin()).await? {
        return Ok(None);
    }
    let left = requests_of(conversation);
    record(connection, left, false).await?;
    Ok(Some(left))
}

/// Record of the requests of a deleted conversation: a range that contains no message.
fn requests_of(conversation: Hyphenated) -> LineageRange {
    (conversation, 0, 0)
}

/// Deletes requests of a conversation until the step is over. Returns whether none remains.
async fn delete_requests(
    connection: &mut SqliteConnection,
    conversation: Hyphenated,
    step: &Step,
) -> Result<bool, OperationError> {
    loop {
        let deleted = query(DELETE_REQUESTS)
            .bind(conversation)
            .execute(&mut *connection)
            .await?;
        if deleted.rows_affected() == 0 {
            return Ok(true);
        }
        if step.is_over() {
            return Ok(false);
        }
    }
}

/// Records a range.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    (source, after_seq, upto_seq): LineageRange,
    is_import: bool,
) -> Result<(), OperationError> {
    query(RECORD)
        .bind(source)
        .bind(after_seq)
        .bind(upto_seq)
        .bind(is_import)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes the record of a range. Returns whether there was one.
pub(super) async fn complete(
    connection: &mut SqliteConnection,
    (source, after_seq, upto_seq): LineageRange,
) -> Result<bool, OperationError> {
    let completed = query(COMPLETE)
        .bind(source)
        .bind(after_seq)
        .bind(upto_seq)
        .execute(connection)
        .await?;
    Ok(completed.rows_affected() > 0)
}

/// Deletes messages of a range until the step is over. Returns the range that remains.
async fn delete_some(
    connection: &mut SqliteConnection,
    (source, mut after_seq, upto_seq): LineageRange,
    step: &Step,
) -> Result<Option<LineageRange>, OperationError> {
    loop {
        let end: Option<i64> = query_scalar(BATCH_END)
            .bind(source)
            .bind(after_seq)
            .bind(upto_seq)
            .bind(BATCH)
            .fetch_one(&mut *connection)
            .await?;
        let Some(end) = end else {
            return Ok(None);
        };
        query(sql::DELETE_RANGE)
            .bind(source)
            .bind(after_seq)
            .bind(end)
            .execute(&mut *connection)
            .await?;
        if end >= upto_seq {
            return Ok(None);
        }
        after_seq = end;
        if step.is_over() {
            return Ok(Some((source, after_seq, upto_seq)));
        }
    }
}

/// Deletes the messages of recorded ranges.
#[derive(Debug)]
pub(super) struct Sweeper {
    writer: Arc<SqlitePool>,
    readers: Arc<SqlitePool>,
    file: PathBuf,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Sweeper {
    /// Creates a sweeper of the store in `file`.
    pub(super) fn new(writer: Arc<SqlitePool>, readers: Arc<SqlitePool>, file: PathBuf) -> Self {
        Self {
            writer,
            readers,
            file,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Deletes the messages of recorded ranges. Returns when they are deleted, or after a failure or
    /// [`MAX_WAIT`]; the deletion continues then.
    pub(super) async fn sweep(&self, ranges: Vec<LineageRange>) {
        if ranges.is_empty() {
            return;
        }
        let (attempted, has_attempted) = oneshot::channel();
        let writer = Arc::clone(&self.writer);
        self.spawn(async move {
            let outcome = sweep_all(&writer, &ranges).await;
            // The caller may have stopped waiting.
            let _ = attempted.send(());
            if outcome.is_err() {
                sweep_with_retries(&writer, &ranges).await;
            }
        });
        // The ranges are recorded: nothing depends on the outcome.
        let _ = timeout(MAX_WAIT, has_attempted).await;
    }

    /// Deletes the rows of removed threads. Returns like [`Self::sweep`].
    pub(super) async fn sweep_threads(&self) {
        let (attempted, has_attempted) = oneshot::channel();
        let writer = Arc::clone(&self.writer);
        self.spawn(async move {
            let outcome = removed_threads::sweep(&writer).await;
            // The caller may have stopped waiting.
            let _ = attempted.send(());
            if outcome.is_err() {
                sweep_threads_with_retries(&writer).await;
            }
        });
        // The threads are marked as removed: nothing depends on the outcome.
        let _ = timeout(MAX_WAIT, has_attempted).await;
    }

    /// Deletes the rows of removed checkpoints. Returns like [`Self::sweep`].
    pub(super) async fn sweep_removals(&self) {
        let (attempted, has_attempted) = oneshot::channel();
        let (writer, readers) = (Arc::clone(&self.writer), Arc::clone(&self.readers));
        self.spawn(async move {
            let outcome = removal::sweep(&writer, &readers).await;
            // The caller may have stopped waiting.
            let _ = attempted.send(());
            if outcome.is_err() {
                sweep_removals_with_retries(&writer, &readers).await;
            }
        });
        // The checkpoints are marked as removed: nothing depends on the outcome.
        let _ = timeout(MAX_WAIT, has_attempted).await;
    }

    /// Deletes the threads and the checkpoints that an earlier process has left, in the background.
    pub(super) fn sweep_leftover_threads(&self) {
        let (writer, readers) = (Arc::clone(&self.writer), Arc::clone(&self.readers));
        self.spawn(async move {
            // If these fail, the next start repeats them.
            let _ = removed_threads::remove_unfinished(&writer).await;
            let _ = removal::abandon(&writer).await;
            sweep_removals_with_retries(&writer, &readers).await;
            sweep_threads_with_retries(&writer).await;
        });
    }

    fn spawn(&self, sweep: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(stop.run_until_cancelled_owned(sweep));
    }

    /// Deletes what an earlier process has left, in the background.
    pub(super) fn sweep_leftovers(&self, left: Vec<Leftover>) {
        let mut ranges = Vec::new();
        let mut locks = Vec::new();
        for (source, after_seq, upto_seq, is_import) in left {
            if is_import {
                // Another process may be importing.
                match ImportLock::acquire(&self.file, source.into_uuid()) {
                    Ok(lock) => locks.push(lock),
                    Err(_) => continue,
                }
            }
            ranges.push((source, after_seq, upto_seq));
        }
        if !ranges.is_empty() {
            let writer = Arc::clone(&self.writer);
            self.spawn(async move {
                sweep_with_retries(&writer, &ranges).await;
                drop(locks);
            });
        }
    }

    /// Ends the tasks. What they have not deleted remains recorded.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Deletes the messages of recorded ranges, and repeats it after failures.
async fn sweep_with_retries(writer: &SqlitePool, ranges: &[LineageRange]) {
    for _ in 0..MAX_FAILURES {
        if sweep_all(writer, ranges).await.is_ok() {
            return;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Deletes the rows of removed threads, and repeats it after failures.
async fn sweep_threads_with_retries(writer: &SqlitePool) {
    for _ in 0..MAX_FAILURES {
        if removed_threads::sweep(writer).await.is_ok() {
            return;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Deletes the rows of removed checkpoints, and repeats it after failures.
async fn sweep_removals_with_retries(writer: &SqlitePool, readers: &SqlitePool) {
    for _ in 0..MAX_FAILURES {
        if removal::sweep(writer, readers).await.is_ok() {
            return;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

async fn sweep_all(writer: &SqlitePool, ranges: &[LineageRange]) -> Result<(), OperationError> {
    for range in ranges {
        while !sweep_step(writer, *range).await? {}
    }
    Ok(())
}

/// Deletes some messages of a range, if it is still recorded: an import whose outcome was unknown may
/// have been completed. Returns whether none remains.
async fn sweep_step(writer: &SqlitePool, range: LineageRange) -> Result<bool, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let deleted = async {
        let is_recorded: bool = query_scalar(IS_RECORDED)
            .bind(range.0)
            .bind(range.1)
            .bind(range.2)
            .fetch_one(&mut *transaction)
            .await?;
        if !is_recorded {
            return Ok(true);
        }
        let step = Step::begin();
        let is_complete = if range == requests_of(range.0) {
            delete_requests(&mut transaction, range.0, &step).await?
        } else {
            let left = delete_some(&mut transaction, range, &step).await?;
            left.is_none()
        };
        if is_complete {
            complete(&mut transaction, range).await?;
        }
        Ok(is_complete)
    }
    .await;
    connection::end(transaction, deleted).await
}

/// Lock of an import that writes its messages, held by the process: another process that opens the
/// store does not delete them.
#[derive(Debug)]
pub(super) struct ImportLock {
    path: PathBuf,
    _file: File,
}

impl ImportLock {
    /// Locks an import.
    ///
    /// # Errors
    ///
    /// Fails if another process holds the lock, or the file of the lock cannot be created.
    pub(super) fn acquire(store: &Path, conversation: Uuid) -> std::io::Result<Self> {
        let path = store.with_extension(format!("import-{conversation}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        file.try_lock()?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for ImportLock {
    fn drop(&mut self) {
        // If it remains, the file is empty and no process holds its lock.
        let _ = std::fs::remove_file(&self.path);
    }
}
