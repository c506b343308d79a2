//! Order in which waiting saves are taken.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::{sync::oneshot, time::Instant};

use super::{GroupLimits, GroupOutcome, GroupedSave};
use crate::{
    domain::ConversationId,
    fairness::ShareKey,
    store::{
        Append,
        operation_error::{BackendError, ErrorKind},
    },
};

/// Save that waits for a batch.
pub(super) struct Waiting {
    /// Number of the save, which [`Queue::push`] assigns.
    pub(super) number: u64,
    pub(super) key: ShareKey,
    pub(super) append: Append,
    /// When the call began.
    pub(super) started: Instant,
    pub(super) bytes: usize,
    pub(super) outcome: oneshot::Sender<GroupOutcome>,
}

impl Waiting {
    pub(super) fn conversation(&self) -> ConversationId {
        self.append.conversation.id
    }

    pub(super) fn grouped(&self) -> GroupedSave<'_> {
        GroupedSave {
            append: &self.append,
            started: self.started,
        }
    }
}

/// Waiting saves in the order of their arrival, and what is in progress.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Conversations of the batches in progress.
    conversations: HashSet<ConversationId>,
    batches: usize,
    last_number: u64,
    /// When a session could last not be begun, and why.
    failure: Option<(Instant, BackendError)>,
}

impl Queue {
    /// Number of the saves that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Counts a save as a batch in progress, if none has to be written before it. Returns whether it
    /// may be written at once.
    pub(super) fn start_idle(
        &mut self,
        conversation: ConversationId,
        limits: &GroupLimits,
    ) -> bool {
        let is_idle = self.batches < limits.batches
            && !self.is_ready()
            && self.conversations.insert(conversation);
        self.batches += usize::from(is_idle);
        is_idle
    }

    /// Counts a batch in progress, if a save is ready and the limit permits it. Returns whether it
    /// may be taken.
    pub(super) fn start_batch(&mut self, limits: &GroupLimits) -> bool {
        let starts = self.batches < limits.batches && self.is_ready();
        self.batches += usize::from(starts);
        starts
    }

    /// Ends a batch, with the conversations that it still occupies.
    pub(super) fn end_batch(&mut self, conversations: &[ConversationId]) {
        self.leave(conversations);
        self.batches -= 1;
    }

    /// Permits other batches to write these conversations.
    pub(super) fn leave(&mut self, conversations: &[ConversationId]) {
        for conversation in conversations {
            self.conversations.remove(conversation);
        }
    }

    /// Whether a save waits to whose conversation no batch is writing.
    pub(super) fn is_ready(&self) -> bool {
        let is_free = |id: &ConversationId| !self.conversations.contains(id);
        self.waiting
            .iter()
            .any(|waiting| is_free(&waiting.conversation()))
    }

    /// Adds a save, and returns its number.
    pub(super) fn push(&mut self, waiting: Waiting) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.waiting.push_back(Waiting { number, ..waiting });
        number
    }

    /// Records that a session could not be begun.
    pub(super) fn record_failure(&mut self, error: &BackendError) {
        self.failure = Some((Instant::now(), error.clone()));
    }

    /// Removes a save that has waited for too long, and returns the cause. `None` if it was taken.
    pub(super) fn give_up(&mut self, number: u64) -> Option<BackendError> {
        // Numbers are in ascending order.
        let found = self
            .waiting
            .binary_search_by_key(&number, |waiting| waiting.number);
        let waiting = self.waiting.remove(found.ok()?)?;
        let failure = self.failure.as_ref();
        let failure = failure.filter(|(at, _)| *at >= waiting.started);
        Some(match failure {
            Some((_, error)) => error.clone(),
            None => BackendError::new(
                ErrorKind::Unavailable,
                "timed out waiting for the saves before",
            ),
        })
    }

    /// Removes the saves whose calls began before `time`.
    pub(super) fn remove_started_before(&mut self, time: Instant) -> Vec<Waiting> {
        let waiting = std::mem::take(&mut self.waiting);
        let (removed, left) = waiting
            .into_iter()
            .partition(|waiting| waiting.started <= time);
        self.waiting = left;
        Vec::from(removed)
    }

    /// Removes all saves, whose callers learn it from their channels.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes the next batch: at most one save for each conversation, its oldest one. If there are
    /// more than fit, each caller's first one precedes any caller's second one, so that a caller
    /// with many saves does not delay others.
    pub(super) fn take(&mut self, limits: &GroupLimits) -> Vec<Waiting> {
        // A caller that has stopped waiting does not know whether its save was written.
        self.waiting.retain(|waiting| !waiting.outcome.is_closed());
        let mut order = self.order();
        let mut bytes = 0;
        let fitting = order.iter().take(limits.saves).take_while(|(_, at)| {
            bytes += self.waiting[*at].bytes;
            bytes <= limits.bytes
        });
        let fitting = fitting.count().max(1);
        order.truncate(fitting);
        let taken: HashSet<usize> = order.into_iter().map(|(_, at)| at).collect();
        let mut batch = Vec::with_capacity(taken.len());
        let waiting = std::mem::take(&mut self.waiting);
        for (at, waiting) in waiting.into_iter().enumerate() {
            if taken.contains(&at) {
                self.conversations.insert(waiting.conversation());
                batch.push(waiting);
            } else {
                self.waiting.push_back(waiting);
            }
        }
        batch
    }

    /// Returns the indices of the saves that are ready, each after the number of saves of its caller
    /// that precede it, in ascending order.
    fn order(&self) -> Vec<(usize, usize)> {
        let mut conversations = HashSet::with_capacity(self.waiting.len());
        let mut of_caller: HashMap<ShareKey, usize> = HashMap::new();
        let mut order = Vec::with_capacity(self.waiting.len());
        for (at, waiting) in self.waiting.iter().enumerate() {
            let conversation = waiting.conversation();
            if self.conversations.contains(&conversation) || !conversations.insert(conversation) {
                continue;
            }
            let before = of_caller.entry(waiting.key).or_default();
            order.push((*before, at));
            *before += 1;
        }
        order.sort_unstable();
        order
    }
}
