//! Implementation without a window, for PostgreSQL without Redis.

use std::{future::pending, time::Duration};

use async_trait::async_trait;

use super::{Announcement, Claim, FillLease, Lookup, RecentWindow, Window};
use crate::domain::{ConversationId, Message, UserId};

/// Window that stores nothing: every lookup is a miss without a lease.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWindow;

#[async_trait]
impl RecentWindow for NoWindow {
    async fn announce(
        &self,
        conversation: ConversationId,
        _claim: Claim<'_>,
        _limit: Duration,
    ) -> Option<Announcement> {
        Some(Announcement::unannounced(conversation))
    }

    async fn publish(
        &self,
        _announcement: Announcement,
        _owner: &UserId,
        _messages: &[Message],
        _uncompacted_tokens: i64,
    ) {
    }

    async fn publish_replay(&self, _announcement: Announcement, _last_seq: i64) {}

    async fn retire(&self, _announcement: Announcement) {}

    async fn abort(&self, _announcement: Announcement) {}

    async fn forget(&self, _announcement: Announcement) {}

    async fn leave(&self, _announcement: Announcement) {}

    async fn newest(
        &self,
        _conversation: ConversationId,
        _claim: Claim<'_>,
        _limit: u32,
        _min_seq: i64,
    ) -> Lookup {
        Lookup::Miss(None)
    }

    async fn fill(&self, _lease: FillLease, _window: &Window<Message>) {}

    async fn invalidate(&self, _conversation: ConversationId) -> bool {
        true
    }

    fn connection(&self) -> Option<u64> {
        None
    }

    async fn connection_changed(&self, _seen: Option<u64>) {
        pending::<()>().await;
    }

    fn trust(&self, _connection: Option<u64>) {}

    async fn claim_completion(&self, _interval: Duration) -> bool {
        true
    }

    async fn record_completion(&self, _is_complete: bool, _interval: Duration) {}

    fn is_shared(&self) -> bool {
        false
    }

    fn capacity(&self) -> u32 {
        0
    }
}
