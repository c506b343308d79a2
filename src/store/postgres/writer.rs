//! Saves that are written together.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout_at;

use super::{
    PostgresPool, append,
    attempts::{self, CALL_LIMIT},
    batch::append_batch,
    connection::PooledConnection,
    invalidations::{record_after, record_statement},
    server_state::ServerState,
};
use crate::store::{
    APPEND_LIMIT, Append, Appended,
    group_commit::{GroupLimits, GroupOutcome, GroupedSave, SaveWriter, SingleAttempt},
    operation_error::{BackendError, ErrorKind, OperationError},
};

/// Limits of the batches. More batches in progress would only be smaller; the second one is written
/// while the first one waits for the disk.
pub(super) const LIMITS: GroupLimits = GroupLimits {
    batches: 2,
    saves: 64,
    bytes: 256 * 1024,
    waiting: 4_096,
    wait: Duration::from_secs(2),
};

// A batch whose saves have waited ends within the limit of their calls.
const _: () = assert!(
    LIMITS.wait.as_millis() + Duration::from_secs(5).as_millis() < CALL_LIMIT.as_millis()
        && CALL_LIMIT.as_millis() < APPEND_LIMIT.as_millis()
);

/// Writes the batches of a store.
pub(super) struct PostgresWriter {
    pool: Arc<PostgresPool>,
}

/// Failure of a batch.
enum BatchFailure {
    /// All its saves have this error.
    Ended(BackendError),
    /// All its saves continue one by one. See [`GroupOutcome::Single`].
    Single { after_loss: bool },
}

impl PostgresWriter {
    /// Creates a writer that uses the connections of a pool.
    pub(super) fn new(pool: Arc<PostgresPool>) -> Self {
        Self { pool }
    }

    async fn append(
        &self,
        mut connection: PooledConnection,
        saves: &[GroupedSave<'_>],
    ) -> Result<Vec<Option<Appended>>, BatchFailure> {
        let server = &self.pool.server;
        let Some(started) = saves.iter().map(|save| save.started).min() else {
            return Ok(connection.release(Ok(Vec::new())).await?);
        };
        // Whether a save without an idempotency key was executed cannot always be determined.
        if !saves.iter().all(|save| save.append.is_repeatable()) {
            connection.test(server).await?;
        }
        let wait = connection.begin_wait();
        let languages = self.pool.languages;
        let appending = Box::pin(async move {
            let appended = append_batch(&mut connection, server, languages, saves).await;
            let record = match &appended {
                Ok(appended) if connection.is_pooled() => record(server, saves, appended),
                _ => String::new(),
            };
            let appended = appended.map_err(OperationError::from);
            connection.release_with(appended, || record).await
        });
        let appended = timeout_at(started + CALL_LIMIT, wait.for_outcome(appending)).await;
        match appended {
            Ok(Ok(appended)) => Ok(appended?),
            Ok(Err(silent)) => {
                server.record_loss();
                let error = silent.into_error(ErrorKind::ConnectionLost);
                Err(BatchFailure::Ended(error))
            }
            Err(_) => {
                let cause = "the server did not respond in time";
                let error = BackendError::new(ErrorKind::ConnectionLost, cause);
                Err(BatchFailure::Ended(error))
            }
        }
    }
}

/// Returns the statement that records the pending invalidations of the turns that a batch has saved.
fn record(
    server: &ServerState,
    saves: &[GroupedSave<'_>],
    appended: &[Option<Appended>],
) -> String {
    let saved = saves.iter().zip(appended).filter_map(|(save, appended)| {
        appended.as_ref()?;
        let after = record_after(save.append.invalidation, server)?;
        Some((save.append.conversation.id, after))
    });
    let (ids, times): (Vec<_>, Vec<_>) = saved.unzip();
    record_statement(ids, times.into_iter().min())
}

impl From<BackendError> for BatchFailure {
    fn from(error: BackendError) -> Self {
        match error.kind {
            // Another attempt can succeed, or the error may concern a single save of the batch.
            ErrorKind::Retryable
            | ErrorKind::ReadOnly
            | ErrorKind::UniqueViolation
            | ErrorKind::Internal => Self::Single { after_loss: false },
            ErrorKind::ConnectionLost => Self::Single { after_loss: true },
            _ => Self::Ended(error),
        }
    }
}

impl From<OperationError> for BatchFailure {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Backend(error) => error.into(),
            OperationError::Store(_) => Self::Single { after_loss: false },
        }
    }
}

impl SaveWriter for PostgresWriter {
    type Session = PooledConnection;

    async fn begin(&self) -> Result<PooledConnection, BackendError> {
        PooledConnection::acquire(&self.pool).await
    }

    async fn write_batch(
        &self,
        connection: PooledConnection,
        saves: &[GroupedSave<'_>],
    ) -> Vec<GroupOutcome> {
        match self.append(connection, saves).await {
            Ok(appended) => appended
                .into_iter()
                .map(|saved| match saved {
                    Some(saved) => GroupOutcome::Ended(Ok(saved)),
                    None => GroupOutcome::Single { after_loss: false },
                })
                .collect(),
            Err(BatchFailure::Ended(error)) => {
                let outcome = || GroupOutcome::Ended(Err(error.clone().into()));
                saves.iter().map(|_| outcome()).collect()
            }
            Err(BatchFailure::Single { after_loss }) => {
                let outcome = || GroupOutcome::Single { after_loss };
                saves.iter().map(|_| outcome()).collect()
            }
        }
    }

    async fn write_single(
        &self,
        save: &Append,
        attempt: SingleAttempt,
    ) -> Result<Appended, OperationError> {
        let SingleAttempt {
            started,
            after_loss,
        } = attempt;
        let write = |after_loss| append::append(&self.pool, save, after_loss);
        let written = attempts::write_since(&self.pool, started, after_loss, write).await;
        written.map_err(OperationError::Store)
    }
}
