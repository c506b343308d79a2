use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{domain::ConversationId, instrumentation};

/// Upper bound on tokens stored for one conversation. A token beyond it stays in
/// the window until its deadline and makes reads busy until then.
const MAX_TOKENS: usize = 8;

/// Upper bound on conversations. An outage of Redis adds one for each conversation that is written
/// to.
const MAX_CONVERSATIONS: usize = 10_000;

/// Conversations whose windows may lack messages that this process has committed,
/// because Redis could not be reached. This process does not read a window before
/// it has been dropped.
///
/// The store has the same invalidations, which any sidecar completes. This map makes them
/// effective in this process at once.
#[derive(Debug, Default)]
pub(super) struct PendingInvalidations {
    pending: Mutex<HashMap<ConversationId, PendingInvalidation>>,
    added: Notify,
}

#[derive(Debug, Default)]
struct PendingInvalidation {
    /// Number of calls of [`PendingInvalidations::add`], so that a drop that
    /// started before the latest one does not complete it.
    additions: u64,
    tokens: Vec<String>,
}

/// Window to drop, with the tokens of this process to withdraw.
#[derive(Debug)]
pub(super) struct Invalidation {
    pub(super) conversation: ConversationId,
    pub(super) tokens: Vec<String>,
    additions: u64,
}

impl PendingInvalidations {
    /// Adds a conversation, and a token to withdraw from its window. Returns `false` if there are
    /// too many conversations.
    #[must_use]
    pub(super) fn add(&self, conversation: ConversationId, token: Option<String>) -> bool {
        let mut pending = self.lock();
        if pending.len() >= MAX_CONVERSATIONS && !pending.contains_key(&conversation) {
            return false;
        }
        let entry = pending.entry(conversation).or_default();
        entry.additions += 1;
        if let Some(token) = token {
            if entry.tokens.len() == MAX_TOKENS {
                entry.tokens.remove(0);
            }
            entry.tokens.push(token);
        }
        drop(pending);
        self.added.notify_one();
        true
    }

    /// Removes all conversations, because the store has their invalidations.
    pub(super) fn clear(&self) {
        *self.lock() = HashMap::new();
    }

    /// Whether the window of a conversation must not be read or filled.
    pub(super) fn contains(&self, conversation: ConversationId) -> bool {
        self.lock().contains_key(&conversation)
    }

    /// Number of conversations.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until there is an invalidation and returns at most `limit`.
    pub(super) async fn next_batch(&self, limit: usize) -> Vec<Invalidation> {
        loop {
            let added = self.added.notified();
            let batch: Vec<_> = self
                .lock()
                .iter()
                .take(limit)
                .map(Invalidation::new)
                .collect();
            if !batch.is_empty() {
                return batch;
            }
            added.await;
        }
    }

    /// Removes an invalidation whose window was dropped, unless the conversation
    /// was added again in the meantime.
    pub(super) fn complete(&self, invalidation: &Invalidation) {
        let mut pending = self.lock();
        if pending
            .get(&invalidation.conversation)
            .is_some_and(|entry| entry.additions == invalidation.additions)
        {
            pending.remove(&invalidation.conversation);
            // The map may have grown during an outage.
            if pending.is_empty() {
                pending.shrink_to_fit();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConversationId, PendingInvalidation>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Invalidation {
    fn new((conversation, entry): (&ConversationId, &PendingInvalidation)) -> Self {
        Self {
            conversation: *conversation,
            tokens: entry.tokens.clone(),
            additions: entry.additions,
        }
    }
}

/// Reports the number of pending invalidations until they are dropped.
pub(super) fn observe_pending(pending: &Arc<PendingInvalidations>) {
    let pending = Arc::downgrade(pending);
    instrumentation::meter()
        .u64_observable_gauge("conversation_memory.recent_window.unpublished")
        .with_unit("{conversation}")
        .with_description(
            "Conversations that this process reads from the store only, until it can drop \
             their windows.",
        )
        .with_callback(move |observer| {
            if let Some(pending) = pending.upgrade() {
                observer.observe(pending.len() as u64, &[]);
            }
        })
        .build();
}
