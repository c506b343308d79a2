use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use opentelemetry::{KeyValue, metrics::Counter};

use crate::{
    domain::{ConversationId, Message, UserId},
    instrumentation,
    recent::{Announced, Lease, Lookup, RecentWindow},
    telemetry::call,
};

/// A window whose lookups are counted by what came of them.
#[derive(Debug)]
pub struct ObservedRecent {
    inner: Arc<dyn RecentWindow>,
    lookups: Counter<u64>,
}

impl ObservedRecent {
    /// Observes this one.
    pub fn new(inner: Arc<dyn RecentWindow>) -> Self {
        let lookups = instrumentation::meter()
            .u64_counter("conversation_memory.recent_window.lookups")
            .with_unit("{lookup}")
            .with_description("Looks into the recent window, by outcome.")
            .build();
        Self { inner, lookups }
    }
}

#[async_trait]
impl RecentWindow for ObservedRecent {
    async fn announce(&self, conversation: ConversationId, limit: Duration) -> Announced {
        call::is_about(conversation);
        self.inner.announce(conversation, limit).await
    }

    async fn publish(&self, announced: Announced, owner: &UserId, messages: &[Message]) {
        self.inner.publish(announced, owner, messages).await;
    }

    async fn publish_replay(&self, announced: Announced, last_seq: i64) {
        self.inner.publish_replay(announced, last_seq).await;
    }

    async fn retire(&self, announced: Announced) {
        self.inner.retire(announced).await;
    }

    async fn abort(&self, announced: Announced) {
        self.inner.abort(announced).await;
    }

    async fn forget(&self, announced: Announced) {
        self.inner.forget(announced).await;
    }

    async fn leave(&self, announced: Announced) {
        self.inner.leave(announced).await;
    }

    async fn newest(&self, conversation: ConversationId, limit: u32, min_seq: i64) -> Lookup {
        call::is_about(conversation);
        let lookup = self.inner.newest(conversation, limit, min_seq).await;
        let outcome = match &lookup {
            Lookup::Hit(_) => "hit",
            Lookup::Miss(_) => "miss",
            Lookup::Busy => "busy",
            Lookup::Short => "short",
            Lookup::Unavailable => "error",
        };
        self.lookups.add(1, &[KeyValue::new("outcome", outcome)]);
        lookup
    }

    async fn fill(
        &self,
        lease: Lease,
        owner: &UserId,
        last_seq: i64,
        messages: &[Message],
        whole: bool,
    ) {
        self.inner
            .fill(lease, owner, last_seq, messages, whole)
            .await;
    }

    fn capacity(&self) -> u32 {
        self.inner.capacity()
    }
}
