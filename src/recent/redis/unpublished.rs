use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::ConversationId;

/// How many tokens are remembered for a conversation. One that is not costs
/// busy reads until its deadline, no more.
const TOKENS: usize = 8;

/// The conversations whose windows may lack what this process has committed,
/// because Redis could not be told. This process reads none of them before it
/// has dropped it.
///
/// The list grows for as long as Redis is away, by about a hundred bytes for
/// each conversation that is written to meanwhile. Nothing shorter would do:
/// other sidecars may keep a window alive for ever, so that forgetting one
/// would show it again without the missing message.
#[derive(Debug, Default)]
pub(super) struct Unpublished {
    entries: Mutex<HashMap<ConversationId, Entry>>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    /// Counts the additions, so that a drop that began before the latest one
    /// does not count for it.
    additions: u64,
    tokens: Vec<String>,
}

/// A conversation to drop, with the tokens of this process.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) conversation: ConversationId,
    pub(super) tokens: Vec<String>,
    additions: u64,
}

impl Unpublished {
    /// Remembers a conversation.
    pub(super) fn add(&self, conversation: ConversationId, token: Option<String>) {
        let mut entries = self.entries();
        let entry = entries.entry(conversation).or_default();
        entry.additions += 1;
        if let Some(token) = token {
            if entry.tokens.len() == TOKENS {
                entry.tokens.remove(0);
            }
            entry.tokens.push(token);
        }
        drop(entries);
        self.added.notify_one();
    }

    /// Whether the window must not be used.
    pub(super) fn contains(&self, conversation: ConversationId) -> bool {
        self.entries().contains_key(&conversation)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    /// Some of them, at most `limit`; waits until there is one.
    pub(super) async fn due(&self, limit: usize) -> Vec<Due> {
        loop {
            let added = self.added.notified();
            let due: Vec<_> = self.entries().iter().take(limit).map(Due::new).collect();
            if !due.is_empty() {
                return due;
            }
            added.await;
        }
    }

    /// Forgets one that was dropped, unless it was added again meanwhile.
    pub(super) fn dropped(&self, due: &Due) {
        let mut entries = self.entries();
        if entries
            .get(&due.conversation)
            .is_some_and(|entry| entry.additions == due.additions)
        {
            entries.remove(&due.conversation);
            // An outage may have made it large.
            if entries.is_empty() {
                entries.shrink_to_fit();
            }
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ConversationId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    fn new((conversation, entry): (&ConversationId, &Entry)) -> Self {
        Self {
            conversation: *conversation,
            tokens: entry.tokens.clone(),
            additions: entry.additions,
        }
    }
}
