//! No window at all: the embedded store is as near as a cache would be.

use std::time::Duration;

use async_trait::async_trait;

use super::{Announced, Lease, Lookup, RecentWindow};
use crate::domain::{ConversationId, Message, UserId};

/// A window that always misses and keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWindow;

#[async_trait]
impl RecentWindow for NoWindow {
    async fn announce(&self, conversation: ConversationId, _limit: Duration) -> Announced {
        Announced {
            conversation,
            token: None,
        }
    }

    async fn publish(&self, _announced: Announced, _owner: &UserId, _messages: &[Message]) {}

    async fn publish_replay(&self, _announced: Announced, _last_seq: i64) {}

    async fn retire(&self, _announced: Announced) {}

    async fn abort(&self, _announced: Announced) {}

    async fn forget(&self, _announced: Announced) {}

    async fn leave(&self, _announced: Announced) {}

    async fn newest(&self, _conversation: ConversationId, _limit: u32, _min_seq: i64) -> Lookup {
        Lookup::Miss(None)
    }

    async fn fill(
        &self,
        _lease: Lease,
        _owner: &UserId,
        _last_seq: i64,
        _messages: &[Message],
        _whole: bool,
    ) {
    }

    fn capacity(&self) -> u32 {
        0
    }
}
