//! The recent window in memory, for a store that only this process uses.
//!
//! It follows the same rules as the window in Redis, but nothing can fail, and no other process
//! can change the store. The windows of all conversations share a bound on their size; those that
//! were not used for the longest time leave first.

mod stored;
mod table;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::pending;
use opentelemetry::metrics::Meter;
use tokio::time::Instant;

use self::{
    stored::{Publication, Stored},
    table::{Found, Lease, WindowTable},
};
use super::{
    Announcement, Claim, EncodedMessage, FillLease, Lookup, RecentWindow, WINDOW_MESSAGES, Window,
    instruments::{DropReason, FillOutcome, WindowInstruments},
    redis::MAX_WINDOW_MESSAGES,
};
use crate::{
    domain::{ConversationId, Message, UserId},
    instrumentation,
};

/// Time added to the limit of an announced write, because the announcement precedes the write.
const ANNOUNCEMENT_MARGIN: Duration = Duration::from_secs(1);
/// Duration of a lease, within which the reader must fill the window.
const LEASE_DURATION: Duration = Duration::from_secs(3);
/// Number of the only connection to the windows.
const CONNECTION: u64 = 1;

/// The recent window in the memory of this process.
pub struct InProcessRecent {
    shared: Arc<Shared>,
    capacity: usize,
}

struct Shared {
    table: Mutex<WindowTable>,
    instruments: WindowInstruments,
}

/// Lease of a reader in this process, which ends when it is dropped.
pub(super) struct LeaseGuard {
    shared: Weak<Shared>,
    conversation: ConversationId,
    number: u64,
}

impl InProcessRecent {
    /// Creates windows that contain at least `capacity` messages of a conversation and that take at
    /// most `max_bytes` together.
    pub fn new(capacity: usize, max_bytes: usize) -> Self {
        let capacity = capacity.clamp(WINDOW_MESSAGES, MAX_WINDOW_MESSAGES);
        let shared = Arc::new(Shared {
            table: Mutex::new(WindowTable::new(capacity, max_bytes)),
            instruments: WindowInstruments::new(),
        });
        observe_size(&instrumentation::meter(), &shared);
        Self { shared, capacity }
    }

    /// Size of all windows in bytes, as the bound on it counts them.
    pub fn stored_bytes(&self) -> usize {
        self.shared.lock().bytes()
    }

    /// Number of conversations of which something is stored.
    pub fn stored_conversations(&self) -> usize {
        self.shared.lock().len()
    }

    /// Removes all that is stored of a conversation, as if its bytes were needed for others.
    pub fn evict(&self, conversation: ConversationId) {
        self.shared.run(|table| table.evict(conversation));
    }

    /// Withdraws an announcement and drops the window.
    fn drop_window(&self, announcement: &Announcement, reason: DropReason) {
        let (conversation, number) = (announcement.conversation, announcement.number);
        self.shared
            .run(|table| table.drop_window(conversation, number, reason));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, WindowTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation on the table. What it drops is freed after the lock was released.
    fn run<T>(&self, operation: impl FnOnce(&mut WindowTable) -> T) -> T {
        let (outcome, dropped) = {
            let mut table = self.lock();
            let outcome = operation(&mut table);
            (outcome, table.take_dropped())
        };
        for (reason, _) in dropped {
            self.instruments.count_drop(reason);
        }
        outcome
    }
}

#[async_trait]
impl RecentWindow for InProcessRecent {
    async fn announce(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Option<Announcement> {
        let now = Instant::now();
        let deadline = now + limit + ANNOUNCEMENT_MARGIN;
        let number = self
            .shared
            .run(|table| table.announce(conversation, claim, deadline))?;
        Some(Announcement {
            number: Some(number),
            until: (now + limit).into_std(),
            ..Announcement::unannounced(conversation)
        })
    }

    async fn publish(
        &self,
        announcement: Announcement,
        owner: &UserId,
        messages: &[Message],
        uncompacted_tokens: i64,
    ) {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return self.abort(announcement).await;
        };
        let newest = &messages[messages.len().saturating_sub(self.capacity)..];
        let publication = Publication {
            owner: owner.clone(),
            first_seq: first.seq,
            last_seq: last.seq,
            uncompacted_tokens,
            messages: newest.iter().map(EncodedMessage::encode).collect(),
        };
        let (conversation, number) = (announcement.conversation, announcement.number);
        self.shared
            .run(|table| table.publish(conversation, number, publication));
    }

    async fn publish_replay(&self, announcement: Announcement, last_seq: i64) {
        let (conversation, number) = (announcement.conversation, announcement.number);
        self.shared
            .run(|table| table.publish_replay(conversation, number, last_seq));
    }

    async fn retire(&self, announcement: Announcement) {
        self.drop_window(&announcement, DropReason::Removed);
    }

    async fn abort(&self, announcement: Announcement) {
        let (conversation, number) = (announcement.conversation, announcement.number);
        self.shared.run(|table| table.abort(conversation, number));
    }

    async fn forget(&self, announcement: Announcement) {
        self.drop_window(&announcement, DropReason::UnknownConversation);
    }

    async fn leave(&self, _announcement: Announcement) {}

    async fn newest(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: u32,
        min_seq: i64,
    ) -> Lookup {
        let now = Instant::now();
        let found = self
            .shared
            .run(|table| table.newest(conversation, claim, limit as usize, min_seq, now));
        match found {
            Found::OwnerUnknown => Lookup::OwnerUnknown,
            Found::Busy => Lookup::Busy,
            Found::Short => Lookup::Short,
            Found::Hit(window) => Lookup::Hit(window),
            Found::Miss(None) => Lookup::Miss(None),
            Found::Miss(Some(number)) => Lookup::Miss(Some(FillLease {
                guard: Some(LeaseGuard {
                    shared: Arc::downgrade(&self.shared),
                    conversation,
                    number,
                }),
                conversation,
                history: Bytes::new(),
                id: String::new(),
            })),
        }
    }

    async fn fill(&self, lease: FillLease, window: &Window<Message>) {
        let Some(guard) = lease.guard else {
            return;
        };
        let stored = Stored::of(window, self.capacity);
        let lease = Lease {
            number: guard.number,
            expiry: Instant::now(),
        };
        let outcome = self
            .shared
            .run(|table| table.fill(guard.conversation, &lease, stored));
        if matches!(outcome, FillOutcome::TooLarge) {
            // The lease remains until it expires, so that not every read attempts to fill the window.
            guard.leave();
        }
        self.shared.instruments.count_fill(outcome);
    }

    async fn invalidate(&self, conversation: ConversationId) -> bool {
        self.shared
            .run(|table| table.drop_window(conversation, None, DropReason::Unpublished));
        true
    }

    fn connection(&self) -> Option<u64> {
        Some(CONNECTION)
    }

    async fn connection_changed(&self, _seen: Option<u64>) {
        pending::<()>().await;
    }

    fn trust(&self, _connection: Option<u64>) {}

    async fn claim_completion(&self, _interval: Duration) -> bool {
        true
    }

    async fn record_completion(&self, _is_complete: bool, _interval: Duration) {}

    fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }

    fn is_shared(&self) -> bool {
        false
    }
}

impl fmt::Debug for InProcessRecent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessRecent").finish_non_exhaustive()
    }
}

impl LeaseGuard {
    /// Leaves the lease in place until it expires.
    fn leave(mut self) {
        self.shared = Weak::new();
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.run(|table| table.end_lease(self.conversation, self.number));
        }
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseGuard").finish_non_exhaustive()
    }
}

/// Reports the size of the windows until they are dropped.
fn observe_size(meter: &Meter, shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    meter
        .u64_observable_gauge("conversation_memory.recent_window.size")
        .with_unit("By")
        .with_description("Size of the recent windows in the memory of this process.")
        .with_callback(move |observer| {
            if let Some(shared) = shared.upgrade() {
                observer.observe(shared.lock().bytes() as u64, &[]);
            }
        })
        .build();
}
