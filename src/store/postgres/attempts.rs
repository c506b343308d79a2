//! Retries and time limits of calls.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    connection::{ACQUIRE_TIMEOUT, PostgresPool, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT},
    server_state::ServerState,
};
use crate::store::{
    APPEND_LIMIT, REMOVAL_LIMIT, StoreError,
    operation_error::{BackendError, Cause, ErrorKind, OperationError},
};

const MAX_ATTEMPTS: u32 = 3;

/// Time after the beginning of a call within which an attempt can start. Even if the last
/// attempt waits for a connection and its statement takes all its time, it ends before the
/// limit of the call.
const RETRY_WINDOW: Duration = Duration::from_millis(1_500);

/// Time limit of a call other than a removal. It does not depend on the server, which may
/// have stopped responding.
pub(super) const CALL_LIMIT: Duration = Duration::from_millis(7_750);

/// Maximum time that a removal waits for others before its first attempt.
pub(super) const MAX_REMOVAL_WAIT: Duration = Duration::from_secs(2);

const _: () = {
    let last_start = RETRY_WINDOW.as_millis() + ACQUIRE_TIMEOUT.as_millis();
    assert!(last_start + STATEMENT_TIMEOUT.as_millis() < CALL_LIMIT.as_millis());
    assert!(CALL_LIMIT.as_millis() < APPEND_LIMIT.as_millis());
    let removal = REMOVAL_TIMEOUT.as_millis() + STATEMENT_TIMEOUT.as_millis();
    let removal = MAX_REMOVAL_WAIT.as_millis() + last_start + removal;
    assert!(removal < REMOVAL_LIMIT.as_millis());
};

/// Attempts a read, and retries it if its connection was lost.
pub(super) async fn read<T, R>(
    pool: &PostgresPool,
    attempt: impl Fn() -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let started = Instant::now();
    let retries = Retries::new(pool, started);
    match within_limits(
        pool,
        started,
        Box::pin(retry(retries, false, |_| attempt())),
    )
    .await
    {
        Ok((outcome, _)) => outcome.map_err(OperationError::into_read_error),
        Err(cause) => Err(StoreError::Unavailable(cause.into())),
    }
}

/// Attempts an idempotent write. `attempt` receives whether an earlier attempt lost its
/// connection and may have been executed.
pub(super) async fn write<T, R>(
    pool: &PostgresPool,
    attempt: impl Fn(bool) -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    write_since(pool, Instant::now(), false, attempt).await
}

/// Continues an idempotent write that began at `started`. `after_loss` means that its first attempt
/// lost its connection and may have been executed. See [`write()`].
pub(super) async fn write_since<T, R>(
    pool: &PostgresPool,
    started: Instant,
    after_loss: bool,
    attempt: impl Fn(bool) -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let mut retries = Retries::new(pool, started);
    if after_loss && !retries.may_follow(Some(ErrorKind::ConnectionLost)).await {
        return Err(StoreError::OutcomeUnknown("the connection was lost".into()));
    }
    let attempts = Box::pin(retry(retries, after_loss, attempt));
    match within_limits(pool, started, attempts).await {
        Ok((Err(OperationError::Backend(error)), true)) => {
            Err(StoreError::OutcomeUnknown(error.cause.into()))
        }
        Ok((outcome, _)) => outcome.map_err(OperationError::into_write_error),
        // The statement may have been sent: a wait for a connection ends sooner.
        Err(cause) => Err(StoreError::OutcomeUnknown(cause.into())),
    }
}

/// Attempts a transaction. The time limits are applied inside the transaction, because only there
/// is it known whether the COMMIT was sent.
pub(super) async fn transaction<T, R>(
    pool: &PostgresPool,
    attempt: impl Fn() -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let mut retries = Retries::new(pool, Instant::now());
    loop {
        let outcome = attempt().await;
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        // A lost connection leaves unknown whether the COMMIT was executed.
        if kind == Some(ErrorKind::ConnectionLost) || !retries.may_follow(kind).await {
            return outcome.map_err(OperationError::into_write_error);
        }
    }
}

/// Fails if a call that began at `started` has waited for so long that it would exceed its limit with
/// another transaction. Nothing was changed.
pub(super) fn may_start(started: Instant) -> Result<(), OperationError> {
    if started.elapsed() <= RETRY_WINDOW {
        return Ok(());
    }
    let cause = "other writes to the same rows took too long";
    Err(BackendError::new(ErrorKind::Unavailable, cause).into())
}

/// Ends a call that exceeds its limit, or whose server stops responding.
async fn within_limits<T>(
    pool: &PostgresPool,
    started: Instant,
    attempts: impl Future<Output = T>,
) -> Result<T, Cause> {
    let wait = pool.wait();
    match timeout_at(started + CALL_LIMIT, wait.for_outcome(attempts)).await {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(silent)) => {
            pool.server.record_loss();
            Err(silent.into_error(ErrorKind::ConnectionLost).cause)
        }
        Err(_) => Err(Cause::new("the server did not respond in time")),
    }
}

/// Returns the outcome of the last attempt, and whether any attempt lost its connection, an earlier
/// one included (`was_lost`).
/// After a loss, only tested connections are used, so that one restart of the server does
/// not use up all attempts.
async fn retry<T, R>(
    mut retries: Retries<'_>,
    mut was_lost: bool,
    attempt: impl Fn(bool) -> R,
) -> (Result<T, OperationError>, bool)
where
    R: Future<Output = Result<T, OperationError>>,
{
    loop {
        let outcome = attempt(was_lost).await;
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        was_lost |= kind == Some(ErrorKind::ConnectionLost);
        if !retries.may_follow(kind).await {
            return (outcome, was_lost);
        }
    }
}

/// Attempts of one call.
struct Retries<'a> {
    server: &'a ServerState,
    started: Instant,
    attempt_started: std::time::Instant,
    attempts: u32,
    was_read_only: bool,
}

impl<'a> Retries<'a> {
    /// Creates the attempts of a call that began at `started`.
    fn new(pool: &'a PostgresPool, started: Instant) -> Self {
        Self {
            server: &pool.server,
            started,
            attempt_started: std::time::Instant::now(),
            attempts: 0,
            was_read_only: false,
        }
    }

    /// Returns whether another attempt follows one that ended with an error of this kind, after
    /// the delay between the two.
    async fn may_follow(&mut self, kind: Option<ErrorKind>) -> bool {
        self.attempts += 1;
        let is_retryable = match kind {
            Some(ErrorKind::Retryable) => true,
            Some(ErrorKind::ConnectionLost) => {
                self.server.record_loss();
                true
            }
            Some(ErrorKind::ReadOnly) => {
                !std::mem::replace(&mut self.was_read_only, true)
                    && self.server.renew_connections(self.attempt_started)
            }
            _ => false,
        };
        let may_follow =
            is_retryable && self.attempts < MAX_ATTEMPTS && self.started.elapsed() <= RETRY_WINDOW;
        if may_follow {
            sleep(Duration::from_millis(5) * self.attempts).await;
            self.attempt_started = std::time::Instant::now();
        }
        may_follow
    }
}
