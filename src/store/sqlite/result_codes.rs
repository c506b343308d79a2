//! Classification of SQLite's result codes.

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::store::operation_error::{BackendError, ErrorKind, OperationError};

const BUSY: i32 = 5;
const NOMEM: i32 = 7;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;

/// The disk rejected a write, for example because it exceeds a quota or the maximum size of a file.
/// If the disk is full, the result code is FULL.
const IOERR_WRITE: i32 = 778;

/// The file of the shared memory cannot grow.
const IOERR_SHMSIZE: i32 = 4874;

/// A value of a primary key is in use.
const CONSTRAINT_PRIMARYKEY: i32 = 1555;

/// A value of another unique key is in use.
const CONSTRAINT_UNIQUE: i32 = 2067;

/// The file is damaged.
const CORRUPT: i32 = 11;

/// The file is not a database.
const NOTADB: i32 = 26;

/// Primary result codes and their kinds. Codes that are not listed are [`ErrorKind::Internal`],
/// most constraints among them: a write checks them under the write lock before it inserts.
const TABLE: &[(i32, ErrorKind)] = &[
    (INTERRUPT, ErrorKind::TimeLimit), // the handler of a search
    (BUSY, ErrorKind::Unavailable),    // another process writes
    (6, ErrorKind::Unavailable),       // LOCKED
    (NOMEM, ErrorKind::Unavailable),   // out of memory
    (8, ErrorKind::Unavailable),       // READONLY: the file or its directory
    (9, ErrorKind::Unavailable),       // INTERRUPT
    (IOERR, ErrorKind::Unavailable),   // the disk failed
    (13, ErrorKind::Full),             // FULL
    (14, ErrorKind::Unavailable),      // CANTOPEN
    (15, ErrorKind::Unavailable),      // PROTOCOL: the locks of the write-ahead log
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
    let extended = extended_code(error);
    let kind = extended.map_or(ErrorKind::Internal, kind);
    let cause = match extended.map(|code| code & 0xff) {
        Some(CORRUPT | NOTADB) => {
            "the database file is damaged, or is not one: restore it from a backup, "
        }
        _ => "",
    };
    // The message can quote a value.
    let code = error.code().unwrap_or_default();
    BackendError::new(kind, format!("{cause}SQLite result code {code}"))
}

/// Classifies the error of a COMMIT. After a failure of the disk or of memory, the
/// log can contain the whole transaction, which a recovery after a crash replays. A write that the
/// disk has no room for is rejected before the transaction is complete.
pub(super) fn classify_commit(error: sqlx::Error) -> OperationError {
    let kind = sqlite_error(&error)
        .and_then(extended_code)
        .and_then(commit_kind);
    let error = BackendError::from(error);
    let kind = kind.unwrap_or(error.kind);
    BackendError { kind, ..error }.into()
}

/// Kind of an extended result code. Its low byte is the primary code.
fn kind(code: i32) -> ErrorKind {
    match code {
        IOERR_WRITE => return ErrorKind::WriteFailed,
        IOERR_SHMSIZE => return ErrorKind::Full,
        CONSTRAINT_PRIMARYKEY | CONSTRAINT_UNIQUE => return ErrorKind::UniqueViolation,
        _ => {}
    }
    let known = TABLE.iter().find(|(known, _)| *known == code & 0xff);
    known.map_or(ErrorKind::Internal, |(_, kind)| *kind)
}

/// Kind of a result code that has a different meaning for a COMMIT than for other statements.
fn commit_kind(code: i32) -> Option<ErrorKind> {
    match code {
        IOERR_WRITE => Some(ErrorKind::CommitWriteFailed),
        IOERR_SHMSIZE => None,
        _ => matches!(code & 0xff, IOERR | NOMEM).then_some(ErrorKind::ConnectionLost),
    }
}

/// Returns whether another process holds the lock of the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    sqlite_error(error)
        .and_then(extended_code)
        .is_some_and(|code| code & 0xff == BUSY)
}

fn sqlite_error(error: &sqlx::Error) -> Option<&SqliteError> {
    error.as_database_error()?.try_downcast_ref()
}

fn extended_code(error: &SqliteError) -> Option<i32> {
    error.code()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_commit_can_have_an_unknown_outcome() {
        for code in 0..=0xff {
            assert_ne!(kind(code), ErrorKind::ConnectionLost, "{code}");
        }
        // The last one is the failure of fsync.
        for code in [IOERR, NOMEM, 1034] {
            assert_eq!(commit_kind(code), Some(ErrorKind::ConnectionLost));
        }
        assert_eq!(commit_kind(IOERR_WRITE), Some(ErrorKind::CommitWriteFailed));
        // SQLite reports these before it writes the last frame of the commit.
        for code in [BUSY, 8] {
            assert_eq!(commit_kind(code), None, "{code}");
            assert_eq!(kind(code), ErrorKind::Unavailable, "{code}");
        }
        for code in [13, IOERR_SHMSIZE] {
            assert_eq!(commit_kind(code), None, "{code}");
            assert_eq!(kind(code), ErrorKind::Full, "{code}");
        }
    }
}
