//! Checkpoints of the write-ahead log. SQLite performs them within the commit that makes the log long,
//! so that one write in many waits until all recent pages are written to the file. Here they have a
//! connection of their own, beside which writes continue.

use std::{
    convert::Infallible,
    fs::File,
    io::Read as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection, query, sqlite::SqliteConnectOptions,
};
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{SqlitePool, connection, disk_space};
use crate::store::operation_error::{ErrorKind, OperationError};

/// Time between two checkpoints while few pages are written.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks at the log while there are writes.
const SHORT_INTERVAL: Duration = Duration::from_millis(20);

/// Number of pages in the log that the file lacks from which on a checkpoint begins at once (2 MiB).
const MANY_PAGES: u32 = 512;

/// Length of the log in pages (8 MiB) from which on writes wait for the end of a checkpoint. The log
/// begins anew only when a checkpoint has reached its end.
const LONG_LOG: u32 = 2_048;

/// Length of the log in pages (64 MiB) from which on commits perform checkpoints as well.
pub(super) const MAX_LOG: &str = "16384";

/// Writes pages of the log to the file as far as no reader prevents it.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Writes all pages of the log to the file, and gives the room of the log back to the disk.
const EMPTY: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// Positions of 32-bit numbers in the index of the log, which is the `-shm` file: the number of pages in
/// the log, and the number of those that are in the file as well. Source: the chapter "WAL-Index File
/// Format" of SQLite's documentation.
const PAGES: usize = 16;
const PAGES_IN_FILE: usize = 96;

/// State of the log.
#[derive(Clone, Copy)]
struct Log {
    pages: u32,
    in_file: u32,
}

/// Performs checkpoints in the background.
pub(super) struct Checkpointer {
    options: SqliteConnectOptions,
    writer: Arc<SqlitePool>,
    /// Held during a checkpoint: SQLite rejects a second one.
    running: Arc<Mutex<()>>,
    written: Arc<Notify>,
    /// Whether the file could not take the pages of the log.
    has_failed: Arc<AtomicBool>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Checkpointer {
    /// Creates the task, which [`Self::start`] begins, for a store with these options and writer.
    pub(super) fn new(options: SqliteConnectOptions, writer: Arc<SqlitePool>) -> Self {
        Self {
            options,
            writer,
            running: Arc::default(),
            written: Arc::default(),
            has_failed: Arc::default(),
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
        let (writer, running) = (Arc::clone(&self.writer), Arc::clone(&self.running));
        let written = Arc::clone(&self.written);
        let index = disk_space::with_suffix(self.options.get_filename(), "-shm");
        let (stop, has_failed) = (self.stop.clone(), Arc::clone(&self.has_failed));
        self.tasks.spawn(async move {
            while !stop.is_cancelled() {
                if let Ok(mut connection) = options.connect().await {
                    let checkpoints = repeat(&mut connection, &writer, &running, &written, &index);
                    if let Some(Err(error)) = stop.run_until_cancelled(checkpoints).await {
                        let is_full =
                            matches!(error.kind(), Some(ErrorKind::Full | ErrorKind::WriteFailed));
                        has_failed.fetch_or(is_full, Ordering::Relaxed);
                    }
                    // A statement that is running ends before.
                    let _ = connection.close().await;
                }
                stop.run_until_cancelled(sleep(INTERVAL)).await;
            }
        });
    }

    /// Must be called before writes. After a checkpoint that failed, for example on a full disk, a write
    /// must not use the room for a longer log that the file needs.
    pub(super) async fn make_room(&self) {
        if self.has_failed.load(Ordering::Relaxed) {
            self.empty_log().await;
        }
    }

    /// Must be called after writes.
    pub(super) fn notify(&self) {
        self.written.notify_one();
    }

    /// Empties the log, so that other files can use its room on a full disk. Returns whether it has
    /// become shorter.
    pub(super) async fn empty_log(&self) -> bool {
        let _alone = self.running.lock().await;
        let Ok(mut writer) = connection::reserve(&self.writer).await else {
            return false;
        };
        let log = disk_space::with_suffix(self.options.get_filename(), "-wal");
        let size = || log.metadata().map_or(0, |metadata| metadata.len());
        let before = size();
        let emptied = query(EMPTY).execute(&mut *writer).await.is_ok();
        self.has_failed.store(!emptied, Ordering::Relaxed);
        emptied && size() < before
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
    running: &Mutex<()>,
    written: &Notify,
    index: &Path,
) -> Result<Infallible, OperationError> {
    loop {
        let alone = running.lock().await;
        checkpoint(connection).await?;
        // Only writes that came meanwhile are missing, not pages that a reader holds.
        if Log::read(index).is_some_and(|log| log.pages >= LONG_LOG && log.missing() < MANY_PAGES) {
            complete(connection, writer).await?;
        }
        drop(alone);
        let held = Log::read(index).map_or(0, Log::missing);
        if held == 0 && timeout(INTERVAL, written.notified()).await.is_err() {
            continue;
        }
        let started = Instant::now();
        // Pages that a reader holds are not written again and again.
        while started.elapsed() < INTERVAL
            && Log::read(index).is_none_or(|log| log.missing() < held.saturating_add(MANY_PAGES))
        {
            sleep(SHORT_INTERVAL).await;
        }
    }
}

impl Log {
    /// Reads the index of the log; `None` if that is not possible, for example because there is none.
    fn read(index: &Path) -> Option<Self> {
        let mut numbers = [0; PAGES_IN_FILE + 4];
        File::open(index).ok()?.read_exact(&mut numbers).ok()?;
        let number = |position| {
            let bytes = numbers.get(position..position + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            pages: number(PAGES)?,
            in_file: number(PAGES_IN_FILE)?,
        })
    }

    /// Number of pages that the file lacks.
    fn missing(self) -> u32 {
        self.pages.saturating_sub(self.in_file)
    }
}

async fn checkpoint(connection: &mut SqliteConnection) -> sqlx::Result<()> {
    query(CHECKPOINT).execute(connection).await.map(drop)
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
