//! What SQLite's result codes mean.

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::store::failure::{ErrorKind, Failure};

const BUSY: i32 = 5;
const IOERR: i32 = 10;

/// Primary result codes; those that are not here are [`ErrorKind::Internal`]. A
/// constraint is one of those: inside a transaction that has the write lock all of
/// them were looked at before.
const TABLE: &[(i32, ErrorKind)] = &[
    (BUSY, ErrorKind::Unavailable),  // another process writes
    (6, ErrorKind::Unavailable),     // LOCKED
    (7, ErrorKind::Unavailable),     // NOMEM
    (8, ErrorKind::Unavailable),     // READONLY: the file, or its folder
    (9, ErrorKind::Unavailable),     // INTERRUPT
    (IOERR, ErrorKind::Unavailable), // the disk
    (13, ErrorKind::Unavailable),    // FULL
    (14, ErrorKind::Unavailable),    // CANTOPEN
    (15, ErrorKind::Unavailable),    // PROTOCOL: the locks of the log
];

/// Classifies an error of a statement.
pub(in crate::store) fn failure(error: &SqliteError) -> Failure {
    let code = primary(error);
    let message = error.message();
    // SQLite has no code of its own for a schema that is not there yet.
    if message.starts_with("no such table") || message.starts_with("no such column") {
        return Failure::new(ErrorKind::Unavailable, "the file has another schema");
    }
    let class = TABLE
        .iter()
        .find(|(known, _)| Some(*known) == code)
        .map_or(ErrorKind::Internal, |(_, class)| *class);
    // The message may quote a value.
    let code = error.code().unwrap_or_default();
    Failure::new(class, format!("SQLite's result code {code}"))
}

/// Whether the disk failed.
pub(super) fn is_io(error: &sqlx::Error) -> bool {
    is(error, IOERR)
}

/// Whether another process has the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    is(error, BUSY)
}

fn is(error: &sqlx::Error, code: i32) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<SqliteError>())
        .is_some_and(|error| primary(error) == Some(code))
}

/// The low byte of a result code is its class, the rest says more.
fn primary(error: &SqliteError) -> Option<i32> {
    let code: i32 = error.code()?.parse().ok()?;
    Some(code & 0xff)
}
