//! Connections to the file and their write transactions.

use std::{io, path::Path, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    ConnectOptions, Connection as _, Sqlite, SqliteConnection, Transaction,
    pool::PoolConnection,
    query_scalar,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{SqlitePool, result_codes, wal};
use crate::store::{
    operation_error::{BackendError, ErrorKind, OperationError},
    pool::Pooled,
};

/// Maximum time that a call waits for the writer, or for a reader.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time that a transaction waits for the write lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

const READERS: u32 = 4;

/// Maximum number of concurrent searches.
pub(super) const SEARCHERS: u32 = 2;

/// Maximum number of exports and imports at once, each of which opens a connection.
pub(super) const MAX_TRANSFERS: usize = 8;

/// Number of statements that a connection keeps prepared. The store has fewer.
const PREPARED_STATEMENTS: usize = 256;

/// Acquires the write lock at once: a transaction that acquires it later can fail with BUSY
/// after its first statements.
const BEGIN: &str = "BEGIN IMMEDIATE";

const NEXT_ACTIVITY: &str =
    "UPDATE activity_order SET last = last + 1 WHERE only = 1 RETURNING last";

/// Time as it is stored: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, sqlx::Type, serde::Serialize)]
#[sqlx(transparent)]
#[serde(transparent)]
pub(super) struct Micros(i64);

impl From<DateTime<Utc>> for Micros {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl From<Micros> for DateTime<Utc> {
    fn from(Micros(micros): Micros) -> Self {
        // Every number that was converted from a time is a valid time.
        Self::from_timestamp_micros(micros).unwrap_or_default()
    }
}

/// Creates the directory of a file if it does not exist, with access for its owner
/// only.
pub(super) fn create_directory(file: &Path) -> io::Result<()> {
    let Some(directory) = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Creates an empty file that only its owner can read, if it does not exist. A file
/// that SQLite creates can be readable for others, and SQLite gives the files beside
/// it the mode of this one.
pub(super) fn create_file(file: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Options of a store on `file`.
pub(super) fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_TIMEOUT)
}

/// Adds the options that every connection of the store depends on.
pub(super) fn required_options(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .foreign_keys(true)
        .statement_cache_capacity(PREPARED_STATEMENTS)
        .disable_statement_logging()
}

/// Adds the options of connections that write: a commit is durable before it is
/// acknowledged.
pub(super) fn writer_options(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        // Removed text is overwritten in the file, not only marked as free.
        .pragma("secure_delete", "ON")
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", wal::MAX_LOG)
}

/// Creates the pool of the one connection that writes. It does not create the file: an empty
/// file in place of a lost one would hide the loss.
pub(super) fn writer(options: SqliteConnectOptions) -> SqlitePool {
    let connections = pool_options(1)
        // SQLite can roll a transaction back when a statement in it fails. The driver still
        // counts it as open then, and would not begin another one.
        .before_acquire(|connection, _| {
            let is_usable = !connection.is_in_transaction();
            Box::pin(async move { Ok(is_usable) })
        })
        // Pages that a statement changes are copied before, in case that it fails. The copies of a
        // batch would be written to a temporary file, which is not overwritten when it is deleted.
        .connect_lazy_with(writer_options(options).pragma("temp_store", "MEMORY"));
    SqlitePool::new("sqlite.writer", connections)
}

/// Creates the pool of the connections that read.
pub(super) fn readers(options: SqliteConnectOptions) -> SqlitePool {
    let connections = pool_options(READERS).connect_lazy_with(options.read_only(true));
    SqlitePool::new("sqlite.readers", connections)
}

/// Creates the pool of the connections that search.
pub(super) fn searchers(options: SqliteConnectOptions) -> SqlitePool {
    let connections = pool_options(SEARCHERS).connect_lazy_with(options.read_only(true));
    SqlitePool::new("sqlite.searchers", connections)
}

fn pool_options(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Waits for a connection to read with.
pub(super) async fn reader(
    readers: &SqlitePool,
) -> Result<Pooled<PoolConnection<Sqlite>>, OperationError> {
    Ok(readers.acquire().await?)
}

/// Waits for the writer connection and reserves it, so that no other write of this process runs
/// while another connection writes.
pub(super) async fn reserve(
    writer: &SqlitePool,
) -> Result<Pooled<PoolConnection<Sqlite>>, OperationError> {
    let reserved = writer.acquire().await;
    reserved.map_err(|error| OperationError::from(error).before_commit())
}

/// Waits for the writer, then for the write lock of the file, and begins a
/// transaction, which [`end`] ends. It is rolled back if it is dropped before.
pub(super) async fn begin(
    writer: &SqlitePool,
) -> Result<Pooled<Transaction<'static, Sqlite>>, OperationError> {
    let begun = writer.begin_with(BEGIN).await;
    begun.map_err(|error| OperationError::from(error).before_commit())
}

/// Begins a transaction of several saves. See [`begin`].
pub(super) async fn begin_batch(
    writer: &SqlitePool,
) -> Result<Pooled<Transaction<'static, Sqlite>>, BackendError> {
    let begun = writer.begin_with(BEGIN).await;
    begun.map_err(|error| match OperationError::from(error).before_commit() {
        OperationError::Backend(error) => error,
        OperationError::Store(error) => BackendError::new(ErrorKind::Internal, error.to_string()),
    })
}

/// Begins a transaction on the given connection. See [`begin`].
pub(super) async fn begin_on(
    connection: &mut SqliteConnection,
) -> Result<Transaction<'_, Sqlite>, OperationError> {
    let begun = connection.begin_with(BEGIN).await;
    begun.map_err(|error| OperationError::from(error).before_commit())
}

/// Commits a transaction whose statements succeeded, and otherwise rolls it back.
/// Only an error of the COMMIT can leave the outcome unknown.
pub(super) async fn end<T>(
    transaction: Pooled<Transaction<'static, Sqlite>>,
    outcome: Result<T, OperationError>,
) -> Result<T, OperationError> {
    transaction.end_with(|it| end_on(it, outcome)).await
}

/// Ends a transaction on a given connection. See [`end`].
pub(super) async fn end_on<T>(
    transaction: Transaction<'_, Sqlite>,
    outcome: Result<T, OperationError>,
) -> Result<T, OperationError> {
    let value = outcome.map_err(OperationError::before_commit)?;
    transaction
        .commit()
        .await
        .map_err(result_codes::classify_commit)?;
    Ok(value)
}

/// Returns the next number of the counter that orders activity.
pub(super) async fn next_activity(
    connection: &mut SqliteConnection,
) -> Result<i64, OperationError> {
    Ok(query_scalar(NEXT_ACTIVITY).fetch_one(connection).await?)
}
