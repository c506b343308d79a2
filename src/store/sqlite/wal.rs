//! Checkpoints of the write-ahead log. SQLite performs them within the commit that makes the log long,
//! so that one write in many waits until all recent pages are written to the file. Here they have a
//! connection of their own, beside which writes continue.

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, query_as, sqlite::SqliteConnectOptions,
};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{SqlitePool, connection};
use crate::store::operation_error::OperationError;

/// Time between two checkpoints.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between two checkpoints while many pages are written.
const SHORT_INTERVAL: Duration = Duration::from_millis(100);

/// Number of new pages in the log after which the interval is short.
const MANY_PAGES: i64 = 1_000;

/// Length of the log in pages (16 MiB) from which on writes wait for the end of a checkpoint. The log
/// begins anew only when a checkpoint has reached its end.
const LONG_LOG: i64 = 4_096;

/// Length of the log in pages (64 MiB) from which on commits perform checkpoints as well.
pub(super) const MAX_LOG: &str = "16384";

/// Writes pages of the log to the file as far as no reader prevents it. Returns whether another
/// checkpoint was running, the length of the log in pages, and how many of them are in the file.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// State of the log after a checkpoint.
#[derive(Clone, Copy, Default)]
struct Log {
    pages: i64,
    in_file: i64,
}

/// Performs checkpoints in the background.
pub(super) struct Checkpointer {
    options: SqliteConnectOptions,
    writer: Arc<SqlitePool>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Checkpointer {
    /// Creates the task, which [`Self::start`] begins, for a store with these options and writer.
    pub(super) fn new(options: SqliteConnectOptions, writer: Arc<SqlitePool>) -> Self {
        Self {
            options,
            writer,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Begins the checkpoints, unless they have begun before.
    pub(super) fn start(&self) {
        if !self.tasks.is_empty() {
            return;
        }
        let options = connection::writer_options(self.options.clone());
        let (writer, stop) = (Arc::clone(&self.writer), self.stop.clone());
        self.tasks.spawn(async move {
            // After a failure, for example on a full disk, the log only becomes longer.
            while !stop.is_cancelled() {
                if let Ok(mut connection) = options.connect().await {
                    let checkpoints = repeat(&mut connection, &writer);
                    let _: Option<Result<(), OperationError>> =
                        stop.run_until_cancelled(checkpoints).await;
                    // A statement that is running ends before.
                    let _ = connection.close().await;
                }
                stop.run_until_cancelled(sleep(INTERVAL)).await;
            }
        });
    }

    /// Ends the task. What it has not written to the file remains in the log.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Performs checkpoints until one fails.
async fn repeat(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
) -> Result<(), OperationError> {
    let mut last = Log::default();
    loop {
        let log = checkpoint(connection).await?;
        let new = if log.pages < last.pages {
            log.pages
        } else {
            log.pages - last.pages
        };
        // Only writes that came meanwhile are missing, not pages that a reader holds.
        if log.pages >= LONG_LOG && log.in_file == log.pages {
            complete(connection, writer).await?;
        }
        last = log;
        sleep(if new < MANY_PAGES {
            INTERVAL
        } else {
            SHORT_INTERVAL
        })
        .await;
    }
}

async fn checkpoint(connection: &mut SqliteConnection) -> sqlx::Result<Log> {
    let (_, pages, in_file): (i64, i64, i64) = query_as(CHECKPOINT).fetch_one(connection).await?;
    Ok(Log { pages, in_file })
}

/// Performs a checkpoint while nothing is written, so that the next write begins the log anew.
async fn complete(
    connection: &mut SqliteConnection,
    writer: &SqlitePool,
) -> Result<(), OperationError> {
    let _reserved = connection::reserve(writer).await?;
    checkpoint(connection).await?;
    Ok(())
}
