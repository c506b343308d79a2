//! The recent window in Redis.
//!
//! A window is one hash, so that it expires and is evicted as a whole, and every
//! access is one script. common.lua says what is in it. Any of the scripts may
//! be executed late, twice removed from its call, or find the window gone:
//! that costs a miss or a busy read, never a message.

mod answer;
mod entry;
mod instruments;
mod scripts;
mod shared;
mod unpublished;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::scripts::Scripts;
use self::{
    answer::Answer,
    instruments::{Fill, Reason},
    shared::Shared,
};
use super::{Announced, Lease, Lookup, RecentWindow, WINDOW_MESSAGES};
use crate::{
    domain::{ConversationId, IdSource, Message, UserId},
    redis::{Redis, RedisError, Refusal},
};

/// The most bytes of messages that a window keeps: a larger one would hold up
/// all others at every read.
pub const WINDOW_BYTES: usize = 1 << 20;

/// The most messages that a window keeps, whatever is asked for.
pub const MAX_WINDOW_MESSAGES: usize = 1_000;

/// What is added to the time that a write may take, for its way to the store.
const ANNOUNCEMENT_MARGIN: Duration = Duration::from_secs(1);
/// How long a reader has to fill a window.
const LEASE: Duration = Duration::from_secs(3);

/// The recent window in Redis.
#[derive(Debug)]
pub struct RedisRecent {
    shared: Arc<Shared>,
    ids: Arc<dyn IdSource>,
    capacity: usize,
}

impl RedisRecent {
    /// A window that keeps at least `capacity` messages of each conversation
    /// for `ttl` after its last use.
    pub fn new(redis: Redis, ids: Arc<dyn IdSource>, ttl: Duration, capacity: usize) -> Self {
        Self::with_scripts(redis, ids, ttl, capacity, Scripts::default())
    }

    /// The same with other scripts, for tests of the scripts.
    pub fn with_scripts(
        redis: Redis,
        ids: Arc<dyn IdSource>,
        ttl: Duration,
        capacity: usize,
        scripts: Scripts,
    ) -> Self {
        let shared = Arc::new(Shared::new(redis, ttl, scripts));
        let dropping = shared::drop_unpublished(Arc::clone(&shared));
        shared.redis.spawn(dropping);
        Self {
            shared,
            ids,
            capacity: capacity.clamp(WINDOW_MESSAGES, MAX_WINDOW_MESSAGES),
        }
    }

    /// How many conversations this process reads from the store only, until it
    /// can drop their windows.
    pub fn unpublished(&self) -> usize {
        self.shared.unpublished.len()
    }

    fn new_id(&self) -> String {
        self.ids.uuid().simple().to_string()
    }

    /// The number and the text of each of the messages that fit, or None when
    /// they are too large for a window.
    fn encode(&self, messages: &[Message]) -> Option<Vec<Bytes>> {
        let newest = &messages[messages.len().saturating_sub(self.capacity)..];
        let mut pairs = Vec::with_capacity(2 * newest.len());
        let mut bytes = 0;
        for message in newest {
            let json = entry::encode(message)?;
            bytes += json.len();
            if bytes > WINDOW_BYTES {
                return None;
            }
            pairs.extend([number(message.seq), json]);
        }
        Some(pairs)
    }

    /// Drops the window after a commit that it is not to show or cannot be shown.
    async fn drop_after_commit(&self, announced: Announced, reason: Reason) {
        let Announced {
            conversation,
            token,
        } = announced;
        let dropped = self
            .shared
            .drop_window(conversation, reason, token.as_slice());
        if dropped.await.is_err() {
            self.shared.unpublished.add(conversation, token);
        }
    }

    /// Reads what newest.lua answered. None when the window makes no sense.
    fn read(conversation: ConversationId, answer: Answer) -> Option<Lookup> {
        match answer.word() {
            "busy" => Some(Lookup::Busy),
            "short" => Some(Lookup::Short),
            "hit" => answer.window(conversation).map(Lookup::Hit),
            "miss" => {
                let id = answer.text()?;
                let lease = (!id.is_empty()).then_some(Lease { conversation, id });
                Some(Lookup::Miss(lease))
            }
            _ => None,
        }
    }

    async fn fill_with(&self, lease: Lease, mut args: Vec<Bytes>, messages: &[Message]) -> Fill {
        if self.shared.unpublished.contains(lease.conversation) {
            return Fill::Refused;
        }
        let Some(pairs) = self.encode(messages) else {
            return Fill::TooLarge;
        };
        args.extend(pairs);
        let fill = &self.shared.scripts.fill;
        match self.shared.run(fill, lease.conversation, &args).await {
            Ok(answer) => match answer.word() {
                "filled" => Fill::Filled,
                "out_of_memory" => Fill::OutOfMemory,
                _ => Fill::Refused,
            },
            Err(RedisError::Refused(Refusal::OutOfMemory)) => Fill::OutOfMemory,
            Err(_) => Fill::Error,
        }
    }
}

#[async_trait]
impl RecentWindow for RedisRecent {
    async fn announce(&self, conversation: ConversationId, limit: Duration) -> Announced {
        let token = self.new_id();
        let args = [
            Bytes::from(token.clone()),
            millis(limit + ANNOUNCEMENT_MARGIN),
            self.shared.ttl.clone(),
        ];
        let announce = &self.shared.scripts.announce;
        let token = match self.shared.run(announce, conversation, &args).await {
            Ok(_) => Some(token),
            Err(RedisError::Unanswered) => {
                // Should it be executed yet, the token is taken back.
                self.shared.unpublished.add(conversation, Some(token));
                None
            }
            Err(_) => None,
        };
        Announced {
            conversation,
            token,
        }
    }

    async fn publish(&self, announced: Announced, owner: &UserId, messages: &[Message]) {
        let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
            return self.abort(announced).await;
        };
        let Some(token) = &announced.token else {
            return self.drop_after_commit(announced, Reason::Unannounced).await;
        };
        let Some(pairs) = self.encode(messages) else {
            return self.drop_after_commit(announced, Reason::TooLarge).await;
        };
        let mut args = vec![
            Bytes::from(token.clone()),
            self.shared.ttl.clone(),
            number(self.capacity),
            number(WINDOW_BYTES),
            Bytes::copy_from_slice(owner.as_str().as_bytes()),
            number(first.seq),
            number(last.seq),
        ];
        args.extend(pairs);
        let publish = &self.shared.scripts.publish;
        let shown = self.shared.run(publish, announced.conversation, &args);
        if shown.await.is_err() {
            self.drop_after_commit(announced, Reason::Unpublished).await;
        }
    }

    async fn publish_replay(&self, announced: Announced, last_seq: i64) {
        let Some(token) = &announced.token else {
            return self.drop_after_commit(announced, Reason::Unannounced).await;
        };
        let args = [
            Bytes::from(token.clone()),
            self.shared.ttl.clone(),
            number(last_seq),
        ];
        let replay = &self.shared.scripts.publish_replay;
        let shown = self.shared.run(replay, announced.conversation, &args);
        if shown.await.is_err() {
            self.drop_after_commit(announced, Reason::Unpublished).await;
        }
    }

    async fn retire(&self, announced: Announced) {
        self.drop_after_commit(announced, Reason::Removed).await;
    }

    async fn abort(&self, announced: Announced) {
        if let Some(token) = announced.token {
            // Left where it is, the token ends at its deadline.
            let _ = self
                .shared
                .abort(announced.conversation, token, false)
                .await;
        }
    }

    async fn forget(&self, announced: Announced) {
        let Announced {
            conversation,
            token,
        } = announced;
        // Without an announcement there is nobody to tell; another call will.
        if let Some(token) = token
            && self
                .shared
                .abort(conversation, token.clone(), true)
                .await
                .is_err()
        {
            self.shared.unpublished.add(conversation, Some(token));
        }
    }

    async fn leave(&self, announced: Announced) {
        // Unannounced, the write may be in no window that shows the conversation.
        if announced.token.is_none() {
            self.shared.unpublished.add(announced.conversation, None);
        }
    }

    async fn newest(&self, conversation: ConversationId, limit: u32, min_seq: i64) -> Lookup {
        if self.shared.unpublished.contains(conversation) {
            return Lookup::Unavailable;
        }
        let args = [
            number(limit),
            number(min_seq),
            Bytes::from(self.new_id()),
            millis(LEASE),
            self.shared.ttl.clone(),
        ];
        let newest = &self.shared.scripts.newest;
        let Ok(answer) = self.shared.run(newest, conversation, &args).await else {
            return Lookup::Unavailable;
        };
        if let Some(lookup) = Self::read(conversation, answer) {
            return lookup;
        }
        let dropped = self
            .shared
            .drop_window(conversation, Reason::Unreadable, &[]);
        if dropped.await.is_err() {
            return Lookup::Unavailable;
        }
        Lookup::Miss(None)
    }

    async fn fill(
        &self,
        lease: Lease,
        owner: &UserId,
        last_seq: i64,
        messages: &[Message],
        whole: bool,
    ) {
        let whole = whole && messages.len() <= self.capacity;
        let args = vec![
            Bytes::from(lease.id.clone()),
            self.shared.ttl.clone(),
            Bytes::copy_from_slice(owner.as_str().as_bytes()),
            number(last_seq),
            number(u8::from(whole)),
        ];
        // A window that is not filled is a miss.
        let outcome = self.fill_with(lease, args, messages).await;
        self.shared.instruments.filled(outcome);
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }
}

fn number(number: impl Copy + ToString) -> Bytes {
    Bytes::from(number.to_string())
}

fn millis(duration: Duration) -> Bytes {
    number(duration.as_millis())
}
