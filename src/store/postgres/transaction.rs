//! Transactions of several statements.
//!
//! Until its COMMIT is sent one has changed nothing, whatever becomes of it: its
//! connection is closed unless it came to its end, and the server rolls back what
//! a lost client had begun. `Pool::begin` is not used, since a future that is
//! dropped inside of it leaves a connection in a transaction that nobody ends.

use std::future::Future;

use sqlx::raw_sql;
use tokio::time::timeout;

use super::connection::{Lease, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT};
use crate::store::failure::{ErrorKind, Failure, OperationError};

/// Each statement may take as long as the whole transaction, which the client
/// limits. A statement must see what was done before it got its lock, whatever the
/// database's default is.
pub(super) const BEGIN: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '35s'";

/// Limits the work before the commit. What fails in it has changed nothing.
pub(super) async fn before_commit<T>(
    work: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, OperationError> {
    match timeout(REMOVAL_TIMEOUT, work).await {
        Ok(Err(OperationError::Failed(Failure {
            class: ErrorKind::Lost,
            cause,
        }))) => Err(Failure {
            class: ErrorKind::Unavailable,
            cause,
        }
        .into()),
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(ErrorKind::Unavailable, "the transaction took too long").into()),
    }
}

/// Commits what was done, or takes it back, and gives the connection back if
/// that worked.
pub(super) async fn end<T>(
    mut lease: Lease,
    outcome: Result<T, OperationError>,
) -> Result<T, OperationError> {
    let statement = if outcome.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    let ended = timeout(STATEMENT_TIMEOUT, raw_sql(statement).execute(&mut *lease)).await;
    let failure = match ended {
        Ok(Ok(_)) => return lease.release(outcome),
        Ok(Err(error)) => Failure::from(error),
        Err(_) => Failure::new(ErrorKind::Lost, "the commit was not answered in time"),
    };
    // A failed ROLLBACK changes nothing about why it was wanted.
    outcome.and(Err(failure.into()))
}
