//! Retries and time limits of calls.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    connection::{ACQUIRE_TIMEOUT, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT},
    server_state::ServerState,
};
use crate::store::{
    APPEND_LIMIT, REMOVAL_LIMIT, StoreError,
    operation_error::{Cause, ErrorKind, OperationError},
};

const MAX_ATTEMPTS: u32 = 3;

/// Time after the beginning of a call within which an attempt can start. Even if the last
/// attempt waits for a connection and its statement takes all its time, it ends before the
/// limit of the call.
const RETRY_WINDOW: Duration = Duration::from_millis(1_500);

/// Time limit of a call other than a removal. It does not depend on the server, which may
/// have stopped responding.
const CALL_LIMIT: Duration = Duration::from_millis(7_750);

const _: () = {
    let last_start = RETRY_WINDOW.as_millis() + ACQUIRE_TIMEOUT.as_millis();
    assert!(last_start + STATEMENT_TIMEOUT.as_millis() < CALL_LIMIT.as_millis());
    assert!(CALL_LIMIT.as_millis() < APPEND_LIMIT.as_millis());
    let removal = REMOVAL_TIMEOUT.as_millis() + STATEMENT_TIMEOUT.as_millis();
    assert!(last_start + removal < REMOVAL_LIMIT.as_millis());
};

/// Attempts a read, and retries it if its connection was lost.
pub(super) async fn read<T, R>(
    server: &ServerState,
    attempt: impl Fn() -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let attempts = retry(server, |_| attempt());
    match timeout(CALL_LIMIT, attempts).await {
        Ok((outcome, _)) => outcome.map_err(OperationError::into_read_error),
        Err(_) => Err(StoreError::Unavailable(no_response().into())),
    }
}

/// Attempts an idempotent write. `attempt` receives whether an earlier attempt lost its
/// connection and may have been executed.
pub(super) async fn write<T, R>(
    server: &ServerState,
    attempt: impl Fn(bool) -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    match timeout(CALL_LIMIT, retry(server, attempt)).await {
        Ok((Err(OperationError::Backend(error)), true)) => {
            Err(StoreError::OutcomeUnknown(error.cause.into()))
        }
        Ok((outcome, _)) => outcome.map_err(OperationError::into_write_error),
        Err(_) => Err(StoreError::OutcomeUnknown(no_response().into())),
    }
}

/// Attempts a transaction. The time limit is applied inside the transaction, because only there
/// is it known whether the COMMIT was sent.
pub(super) async fn transaction<T, R>(attempt: impl Fn() -> R) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let started = Instant::now();
    let mut attempts = 0;
    loop {
        let outcome = attempt().await;
        attempts += 1;
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        if kind != Some(ErrorKind::Retryable) || !may_retry(attempts, started) {
            return outcome.map_err(OperationError::into_write_error);
        }
        back_off(attempts).await;
    }
}

/// Returns the outcome of the last attempt, and whether any attempt lost its connection.
/// After a loss, only tested connections are used, so that one restart of the server does
/// not use up all attempts.
async fn retry<T, R>(
    server: &ServerState,
    attempt: impl Fn(bool) -> R,
) -> (Result<T, OperationError>, bool)
where
    R: Future<Output = Result<T, OperationError>>,
{
    let started = Instant::now();
    let mut was_lost = false;
    let mut attempts = 0;
    loop {
        let outcome = attempt(was_lost).await;
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        if kind == Some(ErrorKind::ConnectionLost) {
            server.record_loss();
            was_lost = true;
        }
        attempts += 1;
        let is_retryable = matches!(kind, Some(ErrorKind::Retryable | ErrorKind::ConnectionLost));
        if !is_retryable || !may_retry(attempts, started) {
            return (outcome, was_lost);
        }
        back_off(attempts).await;
    }
}

fn may_retry(attempts: u32, started: Instant) -> bool {
    attempts < MAX_ATTEMPTS && started.elapsed() <= RETRY_WINDOW
}

async fn back_off(attempts: u32) {
    sleep(Duration::from_millis(5) * attempts).await;
}

fn no_response() -> Cause {
    Cause::new("the server did not respond in time")
}
