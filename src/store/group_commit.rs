//! Group commit: saves that arrive while the store is busy are written together.
//!
//! A save that finds the store idle is written at once, by itself. While as many batches are in
//! progress as [`GroupLimits::batches`] permits, saves wait in a queue, and the next batch takes
//! what has accumulated. All that concerns one database is behind [`SaveWriter`].

mod queue;

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use self::queue::{Queue, Waiting};
use super::{
    Append, Appended, StoreError,
    operation_error::{BackendError, ErrorKind, OperationError},
};
use crate::{domain::ConversationId, fairness::ShareKey, patience::with_patience};

/// Limits of the batches and of the wait for them.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupLimits {
    /// Upper bound on the batches in progress.
    pub(super) batches: usize,
    /// Upper bound on the saves of a batch.
    pub(super) saves: usize,
    /// Upper bound on the size of a batch in bytes, as [`Append::size`] counts them. A larger save is
    /// written by itself and does not wait for others.
    pub(super) bytes: usize,
    /// Upper bound on the saves that wait.
    pub(super) waiting: usize,
    /// Time for which a save waits until its batch is taken.
    pub(super) wait: Duration,
}

/// Writes batches to one database.
pub(super) trait SaveWriter: Send + Sync + 'static {
    /// What a batch is written with, such as a connection.
    type Session: Send;

    /// Waits for a session. Saves that arrive during the wait join the batch.
    ///
    /// # Errors
    ///
    /// Fails if there is no session. Nothing is written then, and all saves that have waited for it
    /// fail with this error.
    fn begin(&self) -> impl Future<Output = Result<Self::Session, BackendError>> + Send;

    /// Writes saves to different conversations together, and ends the session. Returns the outcome
    /// of each save, in their order. There may be no saves, if their callers have stopped waiting.
    ///
    /// Must not wait for what another call occupies for long, such as a locked conversation:
    /// all later saves would wait as well.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, each save is written completely or not at all. Only a batch of one
    /// save is dropped, by its caller.
    fn write_batch(
        &self,
        session: Self::Session,
        saves: &[GroupedSave<'_>],
    ) -> impl Future<Output = Vec<GroupOutcome>> + Send;

    /// Writes one save by itself, outside of the batches.
    ///
    /// # Errors
    ///
    /// Fails as [`Store::append`](super::Store::append) does.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the save is written completely or not at all.
    fn write_single(
        &self,
        save: &Append,
        attempt: SingleAttempt,
    ) -> impl Future<Output = Result<Appended, OperationError>> + Send;
}

/// Save of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupedSave<'a> {
    pub(super) append: &'a Append,
    /// When the call began.
    pub(super) started: Instant,
}

/// Outcome of a save that was written in a batch.
#[derive(Debug)]
pub(super) enum GroupOutcome {
    /// The outcome of the save is determined, or it is known to be unknown.
    Ended(Result<Appended, OperationError>),
    /// The call continues with [`SaveWriter::write_single`], because the batch could not save or
    /// reject the save. `after_loss` means that the batch may have saved it.
    Single { after_loss: bool },
}

/// State in which a call writes its save by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct SingleAttempt {
    /// When the call began.
    pub(super) started: Instant,
    /// Whether a batch may have saved it.
    pub(super) after_loss: bool,
}

/// Queue of saves, and the batches that are in progress.
pub(super) struct GroupCommit<W: SaveWriter>(Arc<Shared<W>>);

struct Shared<W> {
    writer: W,
    limits: GroupLimits,
    queue: Mutex<Queue>,
    tasks: TaskTracker,
    runtime: Handle,
}

/// How a call proceeds.
enum Admission<W: SaveWriter> {
    /// The store is idle: the call itself writes a batch of its save.
    Idle(BatchSlot<W>),
    /// The save waits in the queue under a number.
    Queued(u64, oneshot::Receiver<GroupOutcome>),
    /// Too many saves wait.
    Rejected,
}

impl<W: SaveWriter> GroupCommit<W> {
    /// Creates an empty queue.
    ///
    /// Must be called within a Tokio runtime.
    pub(super) fn new(writer: W, limits: GroupLimits) -> Self {
        Self(Arc::new(Shared {
            writer,
            limits,
            queue: Mutex::default(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }))
    }

    /// Saves a turn, by itself or together with others.
    ///
    /// # Errors
    ///
    /// Fails as [`Store::append`](super::Store::append) does.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the save is executed completely or not at all. Other saves are not
    /// affected by that.
    pub(super) async fn append(&self, append: &Append) -> Result<Appended, OperationError> {
        let started = Instant::now();
        let bytes = append.size();
        let outcome = if bytes > self.0.limits.bytes {
            GroupOutcome::Single { after_loss: false }
        } else {
            match self.admit(append, bytes, started) {
                Admission::Idle(slot) => write_idle(slot, append, started).await,
                Admission::Queued(number, outcome) => self.outcome(number, outcome).await,
                Admission::Rejected => return Err(StoreError::TooManySaves.into()),
            }
        };
        match outcome {
            GroupOutcome::Ended(outcome) => outcome,
            GroupOutcome::Single { after_loss } => {
                let attempt = SingleAttempt {
                    started,
                    after_loss,
                };
                self.0.writer.write_single(append, attempt).await
            }
        }
    }

    /// Saves a turn by itself. See [`Self::append`].
    ///
    /// # Errors
    ///
    /// Fails as [`Store::append`](super::Store::append) does.
    pub(super) async fn append_single(&self, append: &Append) -> Result<Appended, OperationError> {
        let attempt = SingleAttempt {
            started: Instant::now(),
            after_loss: false,
        };
        self.0.writer.write_single(append, attempt).await
    }

    /// Waits until no batch is in progress. Later saves must not follow.
    pub(super) async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn admit(&self, append: &Append, bytes: usize, started: Instant) -> Admission<W> {
        let limits = &self.0.limits;
        let mut queue = self.0.queue();
        if queue.start_idle(append.conversation.id, limits) {
            let slot = BatchSlot::new(&self.0, Some(append.conversation.id));
            return Admission::Idle(slot);
        }
        if queue.len() >= limits.waiting {
            return Admission::Rejected;
        }
        let (outcome, receiver) = oneshot::channel();
        let number = queue.push(Waiting {
            number: 0,
            key: ShareKey::current(),
            append: append.clone(),
            started,
            bytes,
            outcome,
        });
        drop(queue);
        Shared::start_batch(&self.0);
        Admission::Queued(number, receiver)
    }

    /// Waits for the outcome of a queued save. The time until its batch is taken is limited here,
    /// the time after that by the writer.
    async fn outcome(
        &self,
        number: u64,
        mut outcome: oneshot::Receiver<GroupOutcome>,
    ) -> GroupOutcome {
        let received = if let Ok(received) = with_patience(self.0.limits.wait, &mut outcome).await {
            received
        } else {
            if let Some(error) = self.0.queue().give_up(number) {
                return GroupOutcome::Ended(Err(error.into()));
            }
            outcome.await
        };
        received.unwrap_or_else(|_| interrupted())
    }
}

impl<W> Shared<W> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: SaveWriter> Shared<W> {
    /// Starts a batch if saves are ready and another batch may be in progress. The queue must not be
    /// locked: a runtime that has ended drops the task at once.
    fn start_batch(shared: &Arc<Self>) {
        let starts = shared.queue().start_batch(&shared.limits);
        if starts {
            let slot = BatchSlot::new(shared, None);
            let batch = ShareKey::BATCH.scope(slot.run());
            shared.tasks.spawn_on(batch, &shared.runtime);
        }
    }
}

/// Writes a batch of one save, for a call that has found the store idle.
async fn write_idle<W: SaveWriter>(
    slot: BatchSlot<W>,
    append: &Append,
    started: Instant,
) -> GroupOutcome {
    let writer = &slot.shared.writer;
    // Saves of other callers wait for the end of this batch, too.
    match ShareKey::BATCH.scope(writer.begin()).await {
        Ok(session) => {
            let save = GroupedSave { append, started };
            let outcomes = writer.write_batch(session, &[save]).await;
            outcomes.into_iter().next().unwrap_or_else(interrupted)
        }
        Err(error) => {
            slot.shared.queue().record_failure(&error);
            GroupOutcome::Ended(Err(error.into()))
        }
    }
}

/// Outcome of a save whose batch has ended without one.
fn interrupted() -> GroupOutcome {
    let cause = "the batch of the save was interrupted";
    let error = BackendError::new(ErrorKind::ConnectionLost, cause);
    GroupOutcome::Ended(Err(error.into()))
}

/// Place of a batch, or of a save that found the store idle, among those in progress.
struct BatchSlot<W: SaveWriter> {
    shared: Arc<Shared<W>>,
    /// Conversations that are written.
    conversations: Vec<ConversationId>,
    /// Whether the slot belongs to a task, which only the end of the runtime interrupts.
    is_task: bool,
    is_released: bool,
}

impl<W: SaveWriter> BatchSlot<W> {
    /// Owns a slot that the queue has counted, with the conversation of a save that was not queued.
    fn new(shared: &Arc<Shared<W>>, idle: Option<ConversationId>) -> Self {
        Self {
            shared: Arc::clone(shared),
            is_task: idle.is_none(),
            conversations: Vec::from_iter(idle),
            is_released: false,
        }
    }

    /// Writes batches until no save is ready.
    async fn run(mut self) {
        loop {
            let requested = Instant::now();
            match self.shared.writer.begin().await {
                Ok(session) => self.write_batch(session).await,
                Err(error) => self.reject_waiting(requested, &error),
            }
            let mut queue = self.shared.queue();
            if !queue.is_ready() {
                queue.end_batch(&[]);
                drop(queue);
                self.is_released = true;
                return;
            }
        }
    }

    async fn write_batch(&mut self, session: W::Session) {
        let batch = self.shared.queue().take(&self.shared.limits);
        // Another batch has taken the saves, or their callers have stopped waiting.
        if batch.is_empty() {
            return;
        }
        self.conversations = batch.iter().map(Waiting::conversation).collect();
        let saves: Vec<_> = batch.iter().map(Waiting::grouped).collect();
        let outcomes = self.shared.writer.write_batch(session, &saves).await;
        self.shared.queue().leave(&self.conversations);
        self.conversations.clear();
        for (waiting, outcome) in batch.into_iter().zip(outcomes) {
            // The caller may have stopped waiting.
            let _ = waiting.outcome.send(outcome);
        }
    }

    /// Rejects the saves that have waited since `requested` for a session that could not be begun.
    fn reject_waiting(&self, requested: Instant, error: &BackendError) {
        let rejected = {
            let mut queue = self.shared.queue();
            queue.record_failure(error);
            queue.remove_started_before(requested)
        };
        for waiting in rejected {
            let outcome = GroupOutcome::Ended(Err(error.clone().into()));
            let _ = waiting.outcome.send(outcome);
        }
    }
}

impl<W: SaveWriter> Drop for BatchSlot<W> {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        let mut queue = self.shared.queue();
        queue.end_batch(&self.conversations);
        if self.is_task && !std::thread::panicking() {
            // The runtime ends, and would drop another task as well.
            queue.clear();
        } else {
            drop(queue);
            Shared::start_batch(&self.shared);
        }
    }
}

#[cfg(test)]
mod tests;
