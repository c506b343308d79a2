//! Classification of PostgreSQL's error codes.

use std::fmt::Write;

use sqlx::postgres::PgDatabaseError;

use super::pooler::UNSUPPORTED_PARAMETER;
use crate::store::operation_error::{BackendError, ErrorKind};

/// SQLSTATE codes, or the first two characters of a class of codes; the first matching entry
/// applies. The server has rolled a failed statement back, except for
/// [`ErrorKind::ConnectionLost`], where the error can have crossed a commit. The server's
/// message is logged only for [`MessagePolicy::Log`]: those messages name objects of the
/// schema and never values.
const TABLE: &[(&str, ErrorKind, MessagePolicy)] = &[
    ("40003", ErrorKind::ConnectionLost, MessagePolicy::Log), // statement completion unknown
    ("40002", ErrorKind::Internal, MessagePolicy::Omit), // integrity constraint violation at commit
    ("40", ErrorKind::Retryable, MessagePolicy::Log),    // serialization failure, deadlock
    ("23505", ErrorKind::UniqueViolation, MessagePolicy::Omit), // unique violation
    ("08", ErrorKind::ConnectionLost, MessagePolicy::Log), // connection exceptions, some of them from a pooler
    // The server can end a session between the commit and its acknowledgement.
    ("57P01", ErrorKind::ConnectionLost, MessagePolicy::Log), // admin shutdown
    ("57P02", ErrorKind::ConnectionLost, MessagePolicy::Log), // crash shutdown
    ("57P04", ErrorKind::ConnectionLost, MessagePolicy::Log), // database dropped
    ("57014", ErrorKind::TimeLimit, MessagePolicy::Log),      // statement timeout
    ("57", ErrorKind::Unavailable, MessagePolicy::Log),       // starting up, idle session
    ("53100", ErrorKind::Full, MessagePolicy::Log),           // disk full
    ("53", ErrorKind::Unavailable, MessagePolicy::Log),       // out of memory, too many connections
    ("55", ErrorKind::Unavailable, MessagePolicy::Log),       // lock not available, object in use
    ("58", ErrorKind::Unavailable, MessagePolicy::Log),       // I/O error
    ("25006", ErrorKind::ReadOnly, MessagePolicy::Log),       // read-only transaction
    ("25P03", ErrorKind::Unavailable, MessagePolicy::Log),    // idle in transaction for too long
    ("28", ErrorKind::Unavailable, MessagePolicy::Log),       // authentication
    ("3D", ErrorKind::Unavailable, MessagePolicy::Log),       // no such database
    ("42501", ErrorKind::Unavailable, MessagePolicy::Log),    // insufficient privilege
    // The schema is another one, or does not exist yet.
    ("42P01", ErrorKind::Unavailable, MessagePolicy::Log), // undefined table
    ("42703", ErrorKind::Unavailable, MessagePolicy::Log), // undefined column
    ("42883", ErrorKind::Unavailable, MessagePolicy::Log), // undefined function
    ("P0001", ErrorKind::Unavailable, MessagePolicy::Log), // raised by a migration
    ("3F000", ErrorKind::Unavailable, MessagePolicy::Log), // undefined schema
    // Values that request parsing should have rejected.
    ("22", ErrorKind::Internal, MessagePolicy::Omit), // data exceptions: NUL, lone surrogates
    ("54", ErrorKind::Internal, MessagePolicy::Omit), // too long, too deep
    ("23", ErrorKind::Internal, MessagePolicy::Omit), // other constraints
    ("", ErrorKind::Internal, MessagePolicy::Omit),
];

/// A prepared statement that exists already, and one that does not: those of the session are others than
/// the driver has prepared.
const UNKNOWN_STATEMENTS: [&str; 2] = ["42P05", "26000"];

/// Whether the log contains the server's message.
#[derive(Clone, Copy)]
enum MessagePolicy {
    Log,
    Omit,
}

/// Classifies the error of a statement.
pub(in crate::store) fn classify(error: &PgDatabaseError) -> BackendError {
    let (kind, policy) = entry(error.code());
    let mut cause = format!("SQLSTATE {}", error.code());
    // Writing to a string cannot fail.
    if let Some(constraint) = error.constraint() {
        let _ = write!(cause, ", constraint {constraint}");
    }
    if let Some(table) = error.table() {
        let _ = write!(cause, ", table {table}");
    }
    if matches!(policy, MessagePolicy::Log) {
        let _ = write!(cause, ": {}", error.message());
    }
    // PostgreSQL itself accepts the parameters with which the sidecar connects.
    if error.message().starts_with(UNSUPPORTED_PARAMETER) {
        cause.push_str(
            "; this is a connection pooler such as PgBouncer: restart this program, which detects it, and \
             set no options in DATABASE_URL",
        );
    }
    if UNKNOWN_STATEMENTS.contains(&error.code()) {
        cause.push_str(
            ": a pooler in transaction mode has assigned another session; set POSTGRES_POOLER to transaction",
        );
    }
    BackendError::new(kind, cause)
}

/// Looks a code up in the table.
fn entry(code: &str) -> (ErrorKind, MessagePolicy) {
    TABLE
        .iter()
        .find(|(prefix, ..)| code.starts_with(prefix))
        .map_or(
            (ErrorKind::Internal, MessagePolicy::Omit),
            |&(_, kind, policy)| (kind, policy),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_hides_a_later_one() {
        for (at, (prefix, kind, _)) in TABLE.iter().enumerate() {
            assert!(matches!(prefix.len(), 0 | 2 | 5), "{prefix}");
            assert_eq!(
                entry(prefix).0,
                *kind,
                "{prefix} is hidden by an earlier entry"
            );
            assert!(
                !TABLE[..at]
                    .iter()
                    .any(|(earlier, ..)| prefix.starts_with(earlier)),
                "{prefix} is hidden by an earlier entry"
            );
        }
        assert_eq!(
            TABLE.last().unwrap().0,
            "",
            "the last entry matches all other codes"
        );
    }

    #[test]
    fn codes_have_the_expected_kinds() {
        let expected = [
            (ErrorKind::Retryable, &["40001", "40P01"][..]),
            (ErrorKind::UniqueViolation, &["23505"]),
            (
                ErrorKind::ConnectionLost,
                &["08006", "08P01", "57P01", "57P02", "40003"],
            ),
            (ErrorKind::ReadOnly, &["25006"]),
            (ErrorKind::Full, &["53100"]),
            (ErrorKind::TimeLimit, &["57014"]),
            (
                ErrorKind::Unavailable,
                &[
                    "57P03", "53200", "53300", "55P03", "28P01", "3D000", "42P01", "42883",
                    "58030", "P0001",
                ],
            ),
            (
                ErrorKind::Internal,
                &[
                    "22021", "22P02", "22P05", "54000", "54001", "23502", "23503", "23514",
                    "25P02", "42601", "XX000", "XX001", "0A000", "99999",
                ],
            ),
        ];
        for (kind, codes) in expected {
            for code in codes {
                assert_eq!(entry(code).0, kind, "{code}");
            }
        }
    }

    #[test]
    fn messages_that_can_quote_values_are_omitted() {
        for code in ["22021", "22P02", "23505", "23514", "54000", "99999"] {
            assert!(matches!(entry(code).1, MessagePolicy::Omit), "{code}");
        }
    }
}
