//! Classification of SQLite's result codes.

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::store::operation_error::{BackendError, ErrorKind, OperationError};

const BUSY: i32 = 5;
const NOMEM: i32 = 7;
const IOERR: i32 = 10;

/// Primary result codes and their kinds. Codes that are not listed are [`ErrorKind::Internal`],
/// constraints among them: a write checks them under the write lock before it inserts.
const TABLE: &[(i32, ErrorKind)] = &[
    (BUSY, ErrorKind::Unavailable),  // another process writes
    (6, ErrorKind::Unavailable),     // LOCKED
    (NOMEM, ErrorKind::Unavailable), // out of memory
    (8, ErrorKind::Unavailable),     // READONLY: the file or its directory
    (9, ErrorKind::Unavailable),     // INTERRUPT
    (IOERR, ErrorKind::Unavailable), // the disk failed
    (13, ErrorKind::Unavailable),    // FULL
    (14, ErrorKind::Unavailable),    // CANTOPEN
    (15, ErrorKind::Unavailable),    // PROTOCOL: the locks of the write-ahead log
];

/// Classifies the error of a statement.
pub(in crate::store) fn classify(error: &SqliteError) -> BackendError {
    let message = error.message();
    // SQLite has no code for a schema that does not exist yet.
    if message.starts_with("no such table") || message.starts_with("no such column") {
        return BackendError::new(
            ErrorKind::Unavailable,
            "the file does not have this program's schema",
        );
    }
    let kind = primary_code(error).map_or(ErrorKind::Internal, kind);
    // The message can quote a value.
    let code = error.code().unwrap_or_default();
    BackendError::new(kind, format!("SQLite result code {code}"))
}

/// Classifies the error of a COMMIT. After a failure of the disk or of memory, the
/// log can contain the whole transaction, which a recovery after a crash replays.
pub(super) fn classify_commit(error: sqlx::Error) -> OperationError {
    let kind = sqlite_error(&error)
        .and_then(primary_code)
        .and_then(commit_kind);
    let error = BackendError::from(error);
    let kind = kind.unwrap_or(error.kind);
    BackendError { kind, ..error }.into()
}

fn kind(code: i32) -> ErrorKind {
    let known = TABLE.iter().find(|(known, _)| *known == code);
    known.map_or(ErrorKind::Internal, |(_, kind)| *kind)
}

/// Kind of a result code that has a different meaning for a COMMIT than for other statements.
fn commit_kind(code: i32) -> Option<ErrorKind> {
    matches!(code, IOERR | NOMEM).then_some(ErrorKind::ConnectionLost)
}

/// Returns whether another process holds the lock of the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    sqlite_error(error).and_then(primary_code) == Some(BUSY)
}

fn sqlite_error(error: &sqlx::Error) -> Option<&SqliteError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Low byte of an extended result code, which is the code that the table lists.
fn primary_code(error: &SqliteError) -> Option<i32> {
    let code: i32 = error.code()?.parse().ok()?;
    Some(code & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_can_have_an_unknown_outcome() {
        for code in 0..=0xff {
            assert_ne!(kind(code), ErrorKind::ConnectionLost, "{code}");
        }
        for code in [IOERR, NOMEM] {
            assert_eq!(commit_kind(code), Some(ErrorKind::ConnectionLost));
        }
        // SQLite reports these before it writes the last frame of the commit.
        for code in [BUSY, 8, 13] {
            assert_eq!(commit_kind(code), None, "{code}");
            assert_eq!(kind(code), ErrorKind::Unavailable, "{code}");
        }
    }
}
