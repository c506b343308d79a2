use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use opentelemetry::{KeyValue, metrics::Counter};

use crate::{
    call,
    domain::{ConversationId, Message, UserId},
    instrumentation,
    recent::{Announcement, Claim, FillLease, Lookup, RecentWindow, Window},
};

/// Values of the attribute `outcome`.
const OUTCOMES: [&str; 5] = ["hit", "miss", "busy", "short", "error"];

/// Decorator of a window that counts lookups by outcome.
#[derive(Debug)]
pub struct ObservedRecent {
    inner: Arc<dyn RecentWindow>,
    lookups: Counter<u64>,
}

impl ObservedRecent {
    /// Decorates a window.
    pub fn new(inner: Arc<dyn RecentWindow>) -> Self {
        let lookups = instrumentation::meter()
            .u64_counter("conversation_memory.recent_window.lookups")
            .with_unit("{lookup}")
            .with_description("Lookups in the recent window, by outcome.")
            .build();
        for outcome in OUTCOMES {
            instrumentation::export_zero(&lookups, &[KeyValue::new("outcome", outcome)]);
        }
        Self { inner, lookups }
    }
}

#[async_trait]
impl RecentWindow for ObservedRecent {
    async fn announce(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Option<Announcement> {
        call::set_conversation(conversation);
        self.inner.announce(conversation, claim, limit).await
    }

    async fn publish(
        &self,
        announcement: Announcement,
        owner: &UserId,
        messages: &[Message],
        uncompacted_tokens: i64,
    ) {
        self.inner
            .publish(announcement, owner, messages, uncompacted_tokens)
            .await;
    }

    async fn publish_replay(&self, announcement: Announcement, last_seq: i64) {
        self.inner.publish_replay(announcement, last_seq).await;
    }

    async fn retire(&self, announcement: Announcement) {
        self.inner.retire(announcement).await;
    }

    async fn abort(&self, announcement: Announcement) {
        self.inner.abort(announcement).await;
    }

    async fn forget(&self, announcement: Announcement) {
        self.inner.forget(announcement).await;
    }

    async fn leave(&self, announcement: Announcement) {
        self.inner.leave(announcement).await;
    }

    async fn newest(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: u32,
        min_seq: i64,
    ) -> Lookup {
        call::set_conversation(conversation);
        let lookup = self.inner.newest(conversation, claim, limit, min_seq).await;
        let outcome = match &lookup {
            Lookup::Hit(_) => "hit",
            Lookup::Miss(_) => "miss",
            Lookup::Busy => "busy",
            Lookup::Short => "short",
            // The owner's call reads once more, and another user's call has no lookup.
            Lookup::OwnerUnknown => return lookup,
            Lookup::Unavailable => "error",
        };
        self.lookups.add(1, &[KeyValue::new("outcome", outcome)]);
        lookup
    }

    async fn fill(&self, lease: FillLease, window: &Window<Message>) {
        self.inner.fill(lease, window).await;
    }

    async fn invalidate(&self, conversation: ConversationId) -> bool {
        self.inner.invalidate(conversation).await
    }

    fn connection(&self) -> Option<u64> {
        self.inner.connection()
    }

    async fn connection_changed(&self, seen: Option<u64>) {
        self.inner.connection_changed(seen).await;
    }

    fn trust(&self, connection: Option<u64>) {
        self.inner.trust(connection);
    }

    async fn claim_completion(&self, interval: Duration) -> bool {
        self.inner.claim_completion(interval).await
    }

    async fn record_completion(&self, is_complete: bool, interval: Duration) {
        self.inner.record_completion(is_complete, interval).await;
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn capacity(&self) -> u32 {
        self.inner.capacity()
    }
}
