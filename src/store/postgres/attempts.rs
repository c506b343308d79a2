//! How often a call is attempted, and how long it may take.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::connection::{ACQUIRE_TIMEOUT, Losses, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT};
use crate::store::{
    APPEND_LIMIT, REMOVAL_LIMIT, StoreError,
    failure::{Cause, ErrorKind, OperationError},
};

const ATTEMPTS: u32 = 3;

/// No attempt starts later than this after the call. It may wait for a
/// connection, its statement may take all its time, and it is still over before
/// the call's limit.
const START_WITHIN: Duration = Duration::from_millis(1_500);

/// How long a call takes at most, a removal aside. A client must give up by
/// itself on a server that has stopped answering.
const CALL_LIMIT: Duration = Duration::from_millis(7_750);

const _: () = {
    let latest = START_WITHIN.as_millis() + ACQUIRE_TIMEOUT.as_millis();
    assert!(latest + STATEMENT_TIMEOUT.as_millis() < CALL_LIMIT.as_millis());
    assert!(CALL_LIMIT.as_millis() < APPEND_LIMIT.as_millis());
    let removal = REMOVAL_TIMEOUT.as_millis() + STATEMENT_TIMEOUT.as_millis();
    assert!(latest + removal < REMOVAL_LIMIT.as_millis());
};

/// Attempts a read, again when it lost a connection that had died unnoticed.
pub(super) async fn read<T, R>(losses: &Losses, attempt: impl Fn() -> R) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let attempts = repeat(losses, |_| attempt());
    match timeout(CALL_LIMIT, attempts).await {
        Ok((outcome, _)) => outcome.map_err(OperationError::of_read),
        Err(_) => Err(StoreError::Unavailable(no_answer().into())),
    }
}

/// Attempts a write that does the same when it is done twice. It is told whether
/// an earlier attempt was lost and may have been carried out.
pub(super) async fn write<T, R>(
    losses: &Losses,
    attempt: impl Fn(bool) -> R,
) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    match timeout(CALL_LIMIT, repeat(losses, attempt)).await {
        Ok((Err(OperationError::Failed(failure)), true)) => {
            Err(StoreError::OutcomeUnknown(failure.cause.into()))
        }
        Ok((outcome, _)) => outcome.map_err(OperationError::of_write),
        Err(_) => Err(StoreError::OutcomeUnknown(no_answer().into())),
    }
}

/// Attempts a transaction. It limits its own time, since it knows up to which
/// point nothing can have happened.
pub(super) async fn transaction<T, R>(attempt: impl Fn() -> R) -> Result<T, StoreError>
where
    R: Future<Output = Result<T, OperationError>>,
{
    let started = Instant::now();
    let mut tried = 0;
    loop {
        let outcome = attempt().await;
        tried += 1;
        let again = matches!(&outcome, Err(trouble) if trouble.class() == Some(ErrorKind::Retry));
        if !again || tried >= ATTEMPTS || started.elapsed() > START_WITHIN {
            return outcome.map_err(OperationError::of_write);
        }
        pause(tried).await;
    }
}

/// Returns the last attempt's outcome, and whether one was lost. After a loss only
/// a connection that answers is used again, so that one restart of the server
/// does not use up all attempts.
async fn repeat<T, R>(
    losses: &Losses,
    attempt: impl Fn(bool) -> R,
) -> (Result<T, OperationError>, bool)
where
    R: Future<Output = Result<T, OperationError>>,
{
    let started = Instant::now();
    let mut lost = false;
    let mut tried = 0;
    loop {
        let outcome = attempt(lost).await;
        let class = outcome.as_ref().err().and_then(OperationError::class);
        if class == Some(ErrorKind::Lost) {
            losses.note();
            lost = true;
        }
        tried += 1;
        let again = matches!(class, Some(ErrorKind::Retry | ErrorKind::Lost));
        if !again || tried >= ATTEMPTS || started.elapsed() > START_WITHIN {
            return (outcome, lost);
        }
        pause(tried).await;
    }
}

async fn pause(tried: u32) {
    sleep(Duration::from_millis(5) * tried).await;
}

fn no_answer() -> Cause {
    Cause::new("the server did not answer in time")
}
