use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use crate::store::{
    PutCheckpoint,
    checkpoints::{Heads, NewValueRow, PlannedPut, ThreadPlan, continued_keys},
};

/// Number of namespaces that are remembered at most.
const CAPACITY: usize = 2048;

/// Number of values of a namespace that are remembered at most.
const MAX_HEADS: usize = 8;

/// Namespaces of threads that this process has stored checkpoints in, with the ends of their lists.
///
/// A put that continues these needs no read. What is remembered can be out of date: the statement of
/// the put notices that. What is forgotten is read again.
#[derive(Debug)]
pub(in super::super) struct KnownThreads {
    random: RandomState,
    /// A later namespace with the same index replaces an earlier one.
    threads: Box<[Mutex<Option<Known>>]>,
}

#[derive(Debug)]
struct Known {
    conversation: Uuid,
    namespace: String,
    plan: ThreadPlan,
}

impl Default for KnownThreads {
    fn default() -> Self {
        Self {
            random: RandomState::new(),
            threads: (0..CAPACITY).map(|_| Mutex::default()).collect(),
        }
    }
}

impl KnownThreads {
    /// What a put is planned with, if it is known, and if the put has only messages that follow
    /// those of a known list.
    pub(super) fn find(&self, put: &PutCheckpoint) -> Option<ThreadPlan> {
        let known = self.slot(put);
        let known = known.as_ref().filter(|known| known.is_of(put))?;
        let continued = continued_keys(&put.checkpoint.values)?;
        if continued.is_empty() && !put.messages.is_empty() {
            return None;
        }
        let heads = &known.plan.stored.heads;
        let is_known = |key: &Uuid| heads.iter().any(|head| head.key == *key);
        continued.iter().all(is_known).then(|| known.plan.clone())
    }

    /// Remembers a plan that was executed.
    pub(super) fn add(&self, put: &PutCheckpoint, mut plan: ThreadPlan, rows: &PlannedPut) {
        if plan.own_after > 0 {
            return;
        }
        let continued = continued_keys(&put.checkpoint.values).unwrap_or_default();
        let Heads {
            heads,
            last_sequence,
        } = &mut plan.stored;
        heads.retain(|head| !head.is_continued && !continued.contains(&head.key));
        heads.extend(rows.values.iter().filter_map(NewValueRow::head));
        heads.drain(..heads.len().saturating_sub(MAX_HEADS));
        let sequences = heads.iter().filter_map(|head| head.sequence);
        let sequences = sequences.map(|row| row.sequence);
        *last_sequence = sequences.fold(*last_sequence, i32::max);
        *self.slot(put) = Some(Known {
            conversation: put.conversation.id.as_uuid(),
            namespace: put.namespace.as_str().to_owned(),
            plan,
        });
    }

    /// Forgets what a put was planned with.
    pub(super) fn remove(&self, put: &PutCheckpoint) {
        let mut known = self.slot(put);
        if known.as_ref().is_some_and(|known| known.is_of(put)) {
            *known = None;
        }
    }

    fn slot(&self, put: &PutCheckpoint) -> MutexGuard<'_, Option<Known>> {
        let hash = self
            .random
            .hash_one((put.conversation.id.as_uuid(), put.namespace.as_str()));
        let index = usize::try_from(hash % CAPACITY as u64).unwrap_or_default();
        let known = self.threads[index].lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_of(&self, put: &PutCheckpoint) -> bool {
        self.conversation == put.conversation.id.as_uuid()
            && self.namespace == put.namespace.as_str()
    }
}
