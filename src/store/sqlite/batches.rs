//! Batches of saves, each of which is one transaction.

use std::{sync::Arc, time::Duration};

use sqlx::{Sqlite, Transaction};

use super::{
    SqlitePool,
    append::{append, append_in},
    connection,
    together::append_together,
};
use crate::store::{
    Append, Appended,
    group_commit::{GroupLimits, GroupOutcome, GroupedSave, SaveWriter, SingleAttempt},
    operation_error::{BackendError, ErrorKind, OperationError},
    pool::Pooled,
};

/// Limits of batches. There is one writer, and further batches would wait for it.
pub(super) const LIMITS: GroupLimits = GroupLimits {
    batches: 1,
    saves: 64,
    bytes: 256 * 1024,
    waiting: 2_048,
    wait: Duration::from_secs(2),
};

/// Writes batches with the one connection that writes.
pub(super) struct BatchWriter(pub(super) Arc<SqlitePool>);

impl SaveWriter for BatchWriter {
    type Session = Pooled<Transaction<'static, Sqlite>>;

    async fn begin(&self) -> Result<Self::Session, BackendError> {
        connection::begin_batch(&self.0).await
    }

    async fn write_batch(
        &self,
        mut session: Self::Session,
        saves: &[GroupedSave<'_>],
    ) -> Vec<GroupOutcome> {
        let together = match append_together(&mut session, saves).await {
            Ok(together) => together,
            Err(error) => {
                // This rolls the transaction back. The error may concern one save only.
                let ended = connection::end::<()>(session, Err(error)).await;
                return interrupted(saves.len(), None, ended);
            }
        };
        let mut outcomes = Vec::with_capacity(saves.len());
        for (save, saved) in saves.iter().zip(together) {
            let outcome = match saved {
                Some(saved) => Ok(saved),
                None => append_in(&mut session, save.append).await,
            };
            match outcome {
                Err(OperationError::Backend(error)) => {
                    let failed = outcomes.len();
                    let error = OperationError::from(error);
                    // This rolls the transaction back.
                    let ended = connection::end::<()>(session, Err(error)).await;
                    return interrupted(saves.len(), Some(failed), ended);
                }
                outcome => outcomes.push(outcome),
            }
        }
        match connection::end(session, Ok(())).await {
            Ok(()) => outcomes.into_iter().map(GroupOutcome::Ended).collect(),
            Err(error) => uncommitted(&outcomes, &error),
        }
    }

    async fn write_single(
        &self,
        save: &Append,
        _attempt: SingleAttempt,
    ) -> Result<Appended, OperationError> {
        append(&self.0, save).await
    }
}

/// Returns the outcomes of a batch that was rolled back because of an error, of one save if it is
/// known. The others are written by themselves.
fn interrupted(
    saves: usize,
    failed: Option<usize>,
    ended: Result<(), OperationError>,
) -> Vec<GroupOutcome> {
    let single = || GroupOutcome::Single { after_loss: false };
    let mut outcomes: Vec<_> = (0..saves).map(|_| single()).collect();
    let failed = failed.and_then(|failed| outcomes.get_mut(failed));
    if let (Some(outcome), Err(error)) = (failed, ended) {
        *outcome = GroupOutcome::Ended(Err(error));
    }
    outcomes
}

/// Returns the outcomes of a batch whose COMMIT failed. If it is certain that nothing was committed,
/// each save is written by itself: the disk may have room for it. The rejections were determined
/// beside saves that do not exist, and are determined again as well.
fn uncommitted(
    outcomes: &[Result<Appended, OperationError>],
    error: &OperationError,
) -> Vec<GroupOutcome> {
    let outcome = |_| match error {
        OperationError::Backend(error) if is_unknown(error) || outcomes.len() == 1 => {
            GroupOutcome::Ended(Err(error.clone().into()))
        }
        _ => GroupOutcome::Single { after_loss: false },
    };
    outcomes.iter().map(outcome).collect()
}

/// Whether a COMMIT with this error may have been executed, or will be after a crash.
fn is_unknown(error: &BackendError) -> bool {
    matches!(
        error.kind,
        ErrorKind::ConnectionLost | ErrorKind::CommitWriteFailed
    )
}
