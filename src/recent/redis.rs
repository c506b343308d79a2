//! The recent window in Redis.
//!
//! A window is one hash, so that it expires and is evicted as a whole, and every
//! access is one script. common.lua says what is in it. Any of the scripts may
//! be executed late, twice removed from its call, or find the window gone:
//! that costs a miss or a busy read, never a message.

mod entry;
mod scripts;
mod unpublished;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::sleep;

pub use self::scripts::Scripts;
use self::unpublished::Unpublished;
use super::{Announced, Lease, Lookup, RecentWindow, WINDOW_MESSAGES, Window};
use crate::{
    domain::{ConversationId, IdSource, Message, UserId},
    redis::{Occasionally, Redis, RedisError, Reply, Script},
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
/// How many windows are dropped at a time when Redis answers again.
const DROP_BATCH: usize = 64;
/// How long to wait when Redis answers but refuses to drop.
const DROP_RETRY: Duration = Duration::from_millis(250);

/// The recent window in Redis.
#[derive(Debug)]
pub struct RedisRecent {
    shared: Arc<Shared>,
    ids: Arc<dyn IdSource>,
    capacity: usize,
}

#[derive(Debug)]
struct Shared {
    redis: Redis,
    scripts: Scripts,
    ttl: Bytes,
    unpublished: Unpublished,
    undecodable: AtomicU64,
    refusal: Occasionally,
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
        let shared = Arc::new(Shared {
            redis,
            scripts,
            ttl: millis(ttl),
            unpublished: Unpublished::default(),
            undecodable: AtomicU64::new(0),
            refusal: Occasionally::default(),
        });
        let dropping = drop_unpublished(Arc::clone(&shared));
        shared.redis.spawn(dropping);
        Self {
            shared,
            ids,
            capacity: capacity.clamp(WINDOW_MESSAGES, MAX_WINDOW_MESSAGES),
        }
    }

    /// How many windows were dropped because they could not be read: garbage,
    /// or another version's.
    pub fn undecodable(&self) -> u64 {
        self.shared.undecodable.load(Ordering::Relaxed)
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
        let (Some(token), Some(pairs)) = (&announced.token, self.encode(messages)) else {
            return self.retire(announced).await;
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
            self.retire(announced).await;
        }
    }

    async fn publish_replay(&self, announced: Announced, last_seq: i64) {
        let Some(token) = &announced.token else {
            return self.retire(announced).await;
        };
        let args = [
            Bytes::from(token.clone()),
            self.shared.ttl.clone(),
            number(last_seq),
        ];
        let replay = &self.shared.scripts.publish_replay;
        let shown = self.shared.run(replay, announced.conversation, &args);
        if shown.await.is_err() {
            self.retire(announced).await;
        }
    }

    async fn retire(&self, announced: Announced) {
        let Announced {
            conversation,
            token,
        } = announced;
        if self
            .shared
            .drop_window(conversation, token.as_slice())
            .await
            .is_err()
        {
            self.shared.unpublished.add(conversation, token);
        }
    }

    async fn abort(&self, announced: Announced) {
        if let Some(token) = announced.token {
            // Left where it is, the token ends at its deadline.
            let _ = self.shared.abort(announced.conversation, token, 0).await;
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
                .abort(conversation, token.clone(), 1)
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
        let Ok(reply) = self.shared.run(newest, conversation, &args).await else {
            return Lookup::Unavailable;
        };
        if let Some(lookup) = self.shared.read(conversation, reply) {
            return lookup;
        }
        self.shared.count_undecodable(conversation);
        if self.shared.drop_window(conversation, &[]).await.is_err() {
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
        if self.shared.unpublished.contains(lease.conversation) {
            return;
        }
        let Some(pairs) = self.encode(messages) else {
            return;
        };
        let whole = whole && messages.len() <= self.capacity;
        let mut args = vec![
            Bytes::from(lease.id),
            self.shared.ttl.clone(),
            Bytes::copy_from_slice(owner.as_str().as_bytes()),
            number(last_seq),
            number(u8::from(whole)),
        ];
        args.extend(pairs);
        let fill = &self.shared.scripts.fill;
        // A window that is not filled is a miss.
        let _ = self.shared.run(fill, lease.conversation, &args).await;
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }
}

impl Shared {
    async fn run(
        &self,
        script: &Script,
        conversation: ConversationId,
        args: &[Bytes],
    ) -> Result<Reply, RedisError> {
        let key = self
            .redis
            .key(format_args!("history:{conversation}:recent"));
        let result = self.redis.run(script, &key, args).await;
        // An outage is said by the client.
        if let Err(error @ (RedisError::Refused(_) | RedisError::Unexpected)) = &result
            && self.refusal.is_due()
        {
            tracing::warn!(%error, "the recent window goes on without Redis");
        }
        result
    }

    fn count_undecodable(&self, conversation: ConversationId) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(conversation.id = %conversation, "a window made no sense and was dropped");
    }

    async fn abort(
        &self,
        conversation: ConversationId,
        token: String,
        drop: u8,
    ) -> Result<Reply, RedisError> {
        let args = [Bytes::from(token), number(drop)];
        self.run(&self.scripts.abort, conversation, &args).await
    }

    async fn drop_window(
        &self,
        conversation: ConversationId,
        tokens: &[String],
    ) -> Result<Reply, RedisError> {
        let mut args = vec![self.ttl.clone()];
        args.extend(tokens.iter().cloned().map(Bytes::from));
        self.run(&self.scripts.drop, conversation, &args).await
    }

    /// Reads what newest.lua returned. None when the window makes no sense.
    fn read(&self, conversation: ConversationId, reply: Reply) -> Option<Lookup> {
        let mut parts = reply.list().ok()?.into_iter();
        match parts.next()?.text().ok()? {
            "busy" => Some(Lookup::Busy),
            "short" => Some(Lookup::Short),
            "hit" => read_window(conversation, parts).map(Lookup::Hit),
            "miss" => {
                let id = parts.next()?.text().ok()?.to_owned();
                if parts.next()?.integer().ok()? == 1 {
                    self.count_undecodable(conversation);
                }
                let lease = (!id.is_empty()).then_some(Lease { conversation, id });
                Some(Lookup::Miss(lease))
            }
            _ => None,
        }
    }
}

fn read_window(
    conversation: ConversationId,
    mut parts: impl Iterator<Item = Reply>,
) -> Option<Window> {
    let owner = UserId::parse(parts.next()?.text().ok()?).ok()?;
    let last_seq = parts.next()?.integer().ok()?;
    let messages: Vec<_> = parts
        .map(|part| match part {
            Reply::Bytes(json) => entry::decode(conversation, &json),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let in_order = messages.is_sorted_by(|a, b| a.seq < b.seq);
    let in_range = messages.last().is_none_or(|last| last.seq <= last_seq);
    (in_order && in_range).then_some(Window {
        owner,
        last_seq,
        messages,
    })
}

/// Drops the windows that could not be dropped in time, as soon as Redis takes it.
async fn drop_unpublished(shared: Arc<Shared>) {
    loop {
        let due = shared.unpublished.due(DROP_BATCH).await;
        shared.redis.available().await;
        let drops = due.iter().map(async |due| {
            let result = shared.drop_window(due.conversation, &due.tokens).await;
            if result.is_ok() {
                shared.unpublished.dropped(due);
            }
            result.is_ok()
        });
        if join_all(drops).await.contains(&false) {
            sleep(DROP_RETRY).await;
        }
    }
}

fn number(number: impl Copy + ToString) -> Bytes {
    Bytes::from(number.to_string())
}

fn millis(duration: Duration) -> Bytes {
    number(duration.as_millis())
}
