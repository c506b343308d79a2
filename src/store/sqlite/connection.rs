//! How the file is opened, locked and committed to.

use std::{io, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, Transaction,
    pool::PoolConnection,
    query_scalar,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Pool, codes};
use crate::store::{
    StoreError,
    failure::{Failure, OperationError},
};

/// How long a call waits for its turn at the writer, or for a reader.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a transaction waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

const READERS: u32 = 4;

/// How many exports and imports there may be at once, each on a connection of its
/// own.
pub(super) const FILES: usize = 8;

const NEXT_ACTIVITY: &str =
    "UPDATE activity_order SET last = last + 1 WHERE only = 1 RETURNING last";

/// A time as it is stored: microseconds since 1970.
#[derive(Clone, Copy, sqlx::Type)]
#[sqlx(transparent)]
pub(super) struct Micros(i64);

impl From<DateTime<Utc>> for Micros {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl From<Micros> for DateTime<Utc> {
    fn from(Micros(micros): Micros) -> Self {
        // Each number that a time gave gives that time again.
        Self::from_timestamp_micros(micros).unwrap_or_default()
    }
}

/// Makes the folder that a file is to be in, if it is not there.
pub(super) fn make_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes an empty file that only its owner may read, if there is none. SQLite would
/// make one that others may read, too, and gives the files beside it the mode of
/// this one.
pub(super) fn make_file(file: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What every connection to the file is opened with.
pub(super) fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// What the connections that write are opened with: a commit is on the disk
/// when it is acknowledged.
pub(super) fn for_writing(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
}

/// The one connection that writes. It does not create the file: an empty one in
/// the place of one that was lost would look like success.
pub(super) fn writer(options: SqliteConnectOptions) -> Pool {
    let connections = pool_options(1).connect_lazy_with(for_writing(options));
    Pool::new("sqlite.writer", connections)
}

/// The connections that read.
pub(super) fn readers(options: SqliteConnectOptions) -> Pool {
    let connections = pool_options(READERS).connect_lazy_with(options.read_only(true));
    Pool::new("sqlite.readers", connections)
}

fn pool_options(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Takes a connection to read with.
pub(super) async fn reader(readers: &Pool) -> Result<PoolConnection<Sqlite>, OperationError> {
    Ok(readers.acquire().await?)
}

/// Waits for this process's turn at the file, to write on another connection.
pub(super) async fn turn(writer: &Pool) -> Result<PoolConnection<Sqlite>, OperationError> {
    Ok(writer.acquire().await?)
}

/// Begins to write: waits for this process's turn, then for the file's lock.
/// Dropped before [`commit`], the transaction is rolled back.
pub(super) async fn begin(writer: &Pool) -> Result<Transaction<'static, Sqlite>, OperationError> {
    Ok(writer.begin_with("BEGIN IMMEDIATE").await?)
}

/// Commits. Only here can an outcome be in doubt.
pub(super) async fn commit(transaction: Transaction<'_, Sqlite>) -> Result<(), OperationError> {
    match transaction.commit().await {
        Ok(()) => Ok(()),
        // The log may have reached the disk all the same, to be replayed after
        // a crash.
        Err(error) if codes::is_io(&error) => {
            Err(StoreError::OutcomeUnknown(Failure::from(error).cause.into()).into())
        }
        Err(error) => Err(Failure::from(error).of_write().into()),
    }
}

/// The next number of the one counter for what happened after what.
pub(super) async fn next_activity(
    connection: &mut SqliteConnection,
) -> Result<i64, OperationError> {
    Ok(query_scalar(NEXT_ACTIVITY).fetch_one(connection).await?)
}
