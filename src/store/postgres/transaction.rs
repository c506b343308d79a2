//! Transactions of several statements.
//!
//! A transaction has changed nothing until its COMMIT is sent: if it does not end, its
//! connection is closed, and the server rolls it back. `sqlx::Pool::begin` is not used, because
//! a future that is dropped inside it returns a connection to the pool with a transaction that
//! is still open.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use super::{
    connection::{PooledConnection, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT, Wait},
    store_connection::Begin,
};
use crate::store::operation_error::{BackendError, ErrorKind, OperationError};

/// Begins a transaction. A single statement may take as long as the whole transaction, whose
/// time the client limits. Under READ COMMITTED, which is set because the database may have
/// another default, a statement sees the changes that were committed before it obtained its
/// lock.
pub(super) const BEGIN: Begin = Begin {
    statement: "BEGIN ISOLATION LEVEL READ COMMITTED",
    settings: "SET LOCAL statement_timeout = '35s'",
};

/// Limits the time of the statements before the COMMIT. If they fail, nothing is changed.
pub(super) async fn before_commit<T>(
    wait: Wait,
    statements: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, OperationError> {
    before_commit_within(wait, REMOVAL_TIMEOUT, statements).await
}

/// Limits the time of the statements before the COMMIT, like [`before_commit`], to `limit`.
pub(super) async fn before_commit_within<T>(
    wait: Wait,
    limit: Duration,
    statements: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, OperationError> {
    let exceeded = "the transaction exceeded its time limit";
    let outcome = wait.within(limit, exceeded, statements).await;
    outcome.map_err(OperationError::before_commit)
}

/// Commits a transaction whose statements succeeded, otherwise rolls it back, and returns
/// the connection to its pool if that succeeded.
pub(super) async fn end<T>(
    connection: PooledConnection,
    outcome: Result<T, OperationError>,
) -> Result<T, OperationError> {
    end_with(connection, outcome, "").await
}

/// Ends a transaction like [`end`], and executes `last` before the COMMIT. Both are sent as one
/// message, so that a server that receives it late executes both late.
pub(super) async fn end_with<T>(
    mut connection: PooledConnection,
    outcome: Result<T, OperationError>,
    last: &str,
) -> Result<T, OperationError> {
    // The BEGIN may still be executed. Closing the connection ends its transaction.
    if connection.is_unknown() {
        return outcome;
    }
    let statement = match &outcome {
        Ok(_) if connection.has_failed() => {
            let cause = "the transaction has ignored the error of a statement";
            let defect = BackendError::new(ErrorKind::Internal, cause);
            return connection.reuse(Err(defect.into()));
        }
        Ok(_) => format!("{last}COMMIT"),
        // A statement may still be running. Closing the connection rolls the transaction back.
        Err(error) if error.kind() == Some(ErrorKind::Interrupted) => return outcome,
        Err(_) => "ROLLBACK".to_owned(),
    };
    let wait = connection.wait();
    let executed = connection.end(statement);
    let error = match timeout(STATEMENT_TIMEOUT, wait.for_outcome(executed)).await {
        Ok(Ok(Ok(()))) => return connection.reuse(outcome),
        Ok(Ok(Err(error))) => BackendError::from(error),
        Ok(Err(silent)) => silent.into_error(ErrorKind::ConnectionLost),
        Err(_) => BackendError::new(
            ErrorKind::ConnectionLost,
            "the server did not acknowledge the commit in time",
        ),
    };
    // The error of a ROLLBACK does not replace the error that caused it.
    outcome.and(Err(error.into()))
}
