//! What PostgreSQL's error codes mean, in one table.

use std::fmt::Write;

use sqlx::postgres::PgDatabaseError;

use crate::store::failure::{ErrorKind, Failure};

/// Codes, or the first two characters of a class of them; the first that fits
/// counts. The server has rolled a failed statement back, except where
/// [`ErrorKind::Lost`] says that the message may have crossed a commit. The words of a
/// message are kept only where `Words::Safe` says that they name objects of the
/// schema and never values.
const TABLE: &[(&str, ErrorKind, Words)] = &[
    ("40003", ErrorKind::Lost, Words::Safe), // statement completion unknown
    ("40002", ErrorKind::Internal, Words::Private), // integrity constraint violation at commit
    ("40", ErrorKind::Retry, Words::Safe),   // serialization failure, deadlock
    ("23505", ErrorKind::Taken, Words::Private), // unique violation
    ("08", ErrorKind::Lost, Words::Safe),    // connection exceptions, some of them a pooler's
    // The server may end a session between the commit and its acknowledgement.
    ("57P01", ErrorKind::Lost, Words::Safe), // admin shutdown
    ("57P02", ErrorKind::Lost, Words::Safe), // crash shutdown
    ("57P04", ErrorKind::Lost, Words::Safe), // database dropped
    ("57", ErrorKind::Unavailable, Words::Safe), // starting up, statement timeout, idle session
    ("53", ErrorKind::Unavailable, Words::Safe), // disk full, out of memory, too many connections
    ("55", ErrorKind::Unavailable, Words::Safe), // lock not available, object in use
    ("58", ErrorKind::Unavailable, Words::Safe), // I/O error
    ("25006", ErrorKind::Unavailable, Words::Safe), // read-only: a standby
    ("25P03", ErrorKind::Unavailable, Words::Safe), // idle in transaction for too long
    ("28", ErrorKind::Unavailable, Words::Safe), // authentication
    ("3D", ErrorKind::Unavailable, Words::Safe), // no such database
    ("42501", ErrorKind::Unavailable, Words::Safe), // insufficient privilege
    // The schema is not this program's, or not there yet.
    ("42P01", ErrorKind::Unavailable, Words::Safe), // undefined table
    ("42703", ErrorKind::Unavailable, Words::Safe), // undefined column
    ("3F000", ErrorKind::Unavailable, Words::Safe), // undefined schema
    // Values that the edge should have refused.
    ("22", ErrorKind::Internal, Words::Private), // data exceptions: NUL, lone surrogates
    ("54", ErrorKind::Internal, Words::Private), // too long, too deep
    ("23", ErrorKind::Internal, Words::Private), // other constraints
    ("", ErrorKind::Internal, Words::Private),
];

#[derive(Clone, Copy)]
enum Words {
    Safe,
    Private,
}

/// Classifies an error of a statement.
pub(in crate::store) fn failure(error: &PgDatabaseError) -> Failure {
    let (class, words) = classify(error.code());
    let mut cause = format!("SQLSTATE {}", error.code());
    // Writing into a string does not fail.
    if let Some(constraint) = error.constraint() {
        let _ = write!(cause, ", constraint {constraint}");
    }
    if let Some(table) = error.table() {
        let _ = write!(cause, ", table {table}");
    }
    if matches!(words, Words::Safe) {
        let _ = write!(cause, ": {}", error.message());
    }
    Failure::new(class, cause)
}

fn classify(code: &str) -> (ErrorKind, Words) {
    TABLE
        .iter()
        .find(|(prefix, ..)| code.starts_with(prefix))
        .map_or(
            (ErrorKind::Internal, Words::Private),
            |&(_, class, words)| (class, words),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_counts() {
        for (at, (prefix, class, _)) in TABLE.iter().enumerate() {
            assert!(matches!(prefix.len(), 0 | 2 | 5), "{prefix}");
            assert_eq!(
                classify(prefix).0,
                *class,
                "{prefix} is hidden by an earlier one"
            );
            assert!(
                !TABLE[..at]
                    .iter()
                    .any(|(earlier, ..)| prefix.starts_with(earlier)),
                "{prefix} is hidden by an earlier one"
            );
        }
        assert_eq!(
            TABLE.last().unwrap().0,
            "",
            "the last entry is for the rest"
        );
    }

    #[test]
    fn codes_mean_what_they_must() {
        let expected = [
            (ErrorKind::Retry, &["40001", "40P01"][..]),
            (ErrorKind::Taken, &["23505"]),
            (
                ErrorKind::Lost,
                &["08006", "08P01", "57P01", "57P02", "40003"],
            ),
            (
                ErrorKind::Unavailable,
                &[
                    "57P03", "57014", "53100", "53200", "53300", "55P03", "25006", "28P01",
                    "3D000", "42P01", "58030",
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
        for (class, codes) in expected {
            for code in codes {
                assert_eq!(classify(code).0, class, "{code}");
            }
        }
    }

    #[test]
    fn values_never_reach_a_cause() {
        for code in ["22021", "22P02", "23505", "23514", "54000", "99999"] {
            assert!(matches!(classify(code).1, Words::Private), "{code}");
        }
    }
}
