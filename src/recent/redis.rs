//! The recent window in Redis.
//!
//! A window is one hash, so that it expires and is evicted as a whole, and every
//! access is atomic: a read of all fields if it is a hit for a known owner, and a script otherwise.
//! `common.lua` defines the fields. A script may be executed
//! after its call has timed out, and may find that the window no longer exists:
//! the cost is a miss or a busy read, never a missing message.

mod contents;
mod entry;
mod inspect;
mod known_owners;
mod pending_invalidations;
mod script_reply;
mod script_runner;
mod scripts;
mod window_fields;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use self::{
    contents::{are_grouped, encode},
    known_owners::KnownOwners,
    script_runner::ScriptRunner,
    scripts::CompletionScripts,
    window_fields::WindowFields,
};
pub use self::{
    inspect::inspect,
    scripts::{HitCondition, WindowScripts},
};
use super::{
    Announcement, Claim, EncodedMessage, FillLease, Lookup, RecentWindow, WINDOW_MESSAGES, Window,
    instruments::DropReason,
};
use crate::{
    domain::{ConversationId, IdSource, Message, UserId},
    redis::{Redis, RedisError, Reply, Script},
};

/// Decodes all messages of a window from its fields. `None` if they are no window, or an invalid one.
pub fn decode_window(fields: Reply) -> Option<Window<EncodedMessage>> {
    WindowFields::parse(fields)?.into_whole()
}

/// Upper bound on the bytes of messages in a window: reading a larger one would
/// block Redis for all other callers.
pub const WINDOW_BYTES: usize = 1 << 20;

/// Upper bound on the capacity of a window, in messages.
pub const MAX_WINDOW_MESSAGES: usize = 1_000;

/// Time added to the limit of an announced write, because the announcement precedes the write.
const ANNOUNCEMENT_MARGIN: Duration = Duration::from_secs(1);
/// Duration of a lease, within which the reader must fill the window.
const LEASE_DURATION: Duration = Duration::from_secs(3);

/// Returns the identity of the history of the store's data. It is called before the store is used,
/// and a connection that the store uses afterwards belongs to this history or to a later one.
pub type StoreHistory = Arc<dyn Fn() -> Bytes + Send + Sync>;

/// Bits of the number of a connection that count overflows.
const OVERFLOW_BITS: u32 = 20;
/// Number that no connection has.
const UNTRUSTED: u64 = 0;

/// The recent window in Redis.
pub struct RedisRecent {
    runner: Arc<ScriptRunner>,
    ids: Arc<dyn IdSource>,
    capacity: usize,
    owners: KnownOwners,
    completion: CompletionScripts,
    /// [`RecentWindow::connection`] over which windows may be read.
    trusted: AtomicU64,
    /// Number of times that there were too many pending invalidations.
    overflows: AtomicU64,
}

impl RedisRecent {
    /// Creates windows that contain at least `capacity` messages of a conversation, for `ttl`
    /// after the last use.
    pub fn new(
        redis: Redis,
        ids: Arc<dyn IdSource>,
        ttl: Duration,
        capacity: usize,
        history: StoreHistory,
    ) -> Self {
        Self::with_scripts(redis, ids, ttl, capacity, history, WindowScripts::default())
    }

    /// Creates windows like [`Self::new`] with other scripts, for tests.
    pub fn with_scripts(
        redis: Redis,
        ids: Arc<dyn IdSource>,
        ttl: Duration,
        capacity: usize,
        history: StoreHistory,
        scripts: WindowScripts,
    ) -> Self {
        let runner = Arc::new(ScriptRunner::new(redis, ttl, history, scripts));
        let dropping = script_runner::drop_pending(Arc::clone(&runner));
        runner.redis.spawn(dropping);
        Self {
            runner,
            ids,
            capacity: capacity.clamp(WINDOW_MESSAGES, MAX_WINDOW_MESSAGES),
            owners: KnownOwners::default(),
            completion: CompletionScripts::default(),
            trusted: AtomicU64::new(UNTRUSTED),
            overflows: AtomicU64::new(0),
        }
    }

    /// Number of conversations that this process reads from the store only, until
    /// it can drop their windows.
    pub fn pending_invalidations(&self) -> usize {
        self.runner.pending.len()
    }

    fn new_id(&self) -> String {
        self.ids.uuid().simple().to_string()
    }

    /// Returns the newest messages, at most the capacity.
    fn newest_of<'a>(&self, messages: &'a [Message]) -> &'a [Message] {
        &messages[messages.len().saturating_sub(self.capacity)..]
    }

    /// Drops the window after a commit that is not published.
    async fn drop_after_commit(&self, announcement: Announcement, reason: DropReason) {
        let Announcement {
            conversation,
            history,
            token,
            stray,
            ..
        } = announcement;
        let token = token.or(stray);
        let dropped = self
            .runner
            .drop_window(conversation, history, reason, token.as_slice());
        if dropped.await.is_err() {
            self.add_pending(conversation, token);
        }
    }

    /// Adds a pending invalidation. If there are too many, no window is read until those in the
    /// store are complete, because these include every write that was not announced.
    fn add_pending(&self, conversation: ConversationId, token: Option<String>) {
        if !self.runner.pending.add(conversation, token) {
            self.overflows.fetch_add(1, Ordering::SeqCst);
            self.runner.pending.clear();
        }
    }

    /// Runs a script on the key with which processes agree on who completes the pending invalidations.
    async fn run_completion(&self, script: &Script, args: &[Bytes]) -> Option<i64> {
        let redis = &self.runner.redis;
        let key = redis.key("history:invalidations");
        redis.run(script, &key, args).await.ok()?.integer().ok()
    }

    /// Whether windows can be read over the present connection.
    fn is_trusted(&self) -> bool {
        self.connection() == Some(self.trusted.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl RecentWindow for RedisRecent {
    async fn announce(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Option<Announcement> {
        let (token, until) = (self.new_id(), Instant::now() + limit);
        let history = self.runner.history();
        let [claimed, is_confirmed] = claim_args(claim);
        let args = [
            history.clone(),
            claimed,
            is_confirmed,
            Bytes::from(token.clone()),
            milliseconds(limit + ANNOUNCEMENT_MARGIN),
            self.runner.ttl.clone(),
        ];
        let announce = &self.runner.scripts.announce;
        let (token, stray) = match self.runner.run(announce, conversation, &args).await {
            Ok(reply) if reply.outcome() == "owner_unknown" => return None,
            Ok(_) => (Some(token), None),
            // The script may still set the token: it is withdrawn later.
            Err(RedisError::NoReply) => (None, Some(token)),
            Err(_) => (None, None),
        };
        // A caller who may not be the owner must not keep this process from reading the window.
        if let (Some(stray), Claim::Unclaimed | Claim::Confirmed(_)) = (&stray, claim) {
            self.add_pending(conversation, Some(stray.clone()));
        }
        Some(Announcement {
            conversation,
            history,
            token,
            stray,
            number: None,
            until,
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
        let Some(token) = &announcement.token else {
            return self
                .drop_after_commit(announcement, DropReason::Unannounced)
                .await;
        };
        let newest = self.newest_of(messages);
        let Some(entries) = encode(newest.iter()) else {
            return self
                .drop_after_commit(announcement, DropReason::TooLarge)
                .await;
        };
        let mut args = vec![
            announcement.history.clone(),
            Bytes::from(token.clone()),
            self.runner.ttl.clone(),
            decimal(self.capacity),
            decimal(WINDOW_BYTES),
            Bytes::copy_from_slice(owner.as_str().as_bytes()),
            decimal(first.seq),
            decimal(last.seq),
            decimal(uncompacted_tokens),
            decimal(u8::from(are_grouped(newest))),
        ];
        args.extend(entries);
        let publish = &self.runner.scripts.publish;
        let published = self.runner.run(publish, announcement.conversation, &args);
        if published.await.is_err() {
            self.drop_after_commit(announcement, DropReason::Unpublished)
                .await;
            return;
        }
        self.owners.add(announcement.conversation, owner);
    }

    async fn publish_replay(&self, announcement: Announcement, last_seq: i64) {
        let Some(token) = &announcement.token else {
            return self
                .drop_after_commit(announcement, DropReason::Unannounced)
                .await;
        };
        let args = [
            announcement.history.clone(),
            Bytes::from(token.clone()),
            self.runner.ttl.clone(),
            decimal(last_seq),
        ];
        let replay = &self.runner.scripts.publish_replay;
        let published = self.runner.run(replay, announcement.conversation, &args);
        if published.await.is_err() {
            self.drop_after_commit(announcement, DropReason::Unpublished)
                .await;
        }
    }

    async fn retire(&self, announcement: Announcement) {
        self.drop_after_commit(announcement, DropReason::Removed)
            .await;
    }

    async fn abort(&self, announcement: Announcement) {
        let Announcement {
            conversation,
            history,
            token,
            stray,
            ..
        } = announcement;
        if let Some(token) = token.or(stray) {
            // If this fails, the token expires at its deadline.
            let _ = self.runner.abort(conversation, history, token, false).await;
        }
    }

    async fn forget(&self, announcement: Announcement) {
        let Announcement {
            conversation,
            history,
            token,
            stray,
            ..
        } = announcement;
        if let Some(stray) = stray {
            // The caller may not be the owner. If this fails, the token expires at its deadline.
            let _ = self.runner.abort(conversation, history, stray, false).await;
            return;
        }
        // Without an announcement, a later call drops the window.
        if let Some(token) = token
            && self
                .runner
                .abort(conversation, history, token.clone(), true)
                .await
                .is_err()
        {
            self.add_pending(conversation, Some(token));
        }
    }

    async fn leave(&self, announcement: Announcement) {
        // An unannounced write may be missing in an existing window.
        if announcement.token.is_none() {
            self.add_pending(announcement.conversation, announcement.stray);
        }
    }

    async fn newest(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: u32,
        min_seq: i64,
    ) -> Lookup {
        if !self.is_trusted() || self.runner.pending.contains(conversation) {
            return Lookup::Unavailable;
        }
        let history = self.runner.history();
        let wanted = (limit, min_seq);
        if let Some(hit) = self.read_hit(conversation, claim, &history, wanted).await {
            return hit;
        }
        let [claimed, is_confirmed] = claim_args(claim);
        let args = [
            history.clone(),
            claimed,
            is_confirmed,
            decimal(min_seq),
            Bytes::from(self.new_id()),
            milliseconds(LEASE_DURATION),
            self.runner.ttl.clone(),
        ];
        let newest = &self.runner.scripts.newest;
        let Ok(reply) = self.runner.run(newest, conversation, &args).await else {
            return Lookup::Unavailable;
        };
        let lookup = self.decode_lookup(conversation, claim, &history, reply, limit);
        if let Some(lookup) = lookup {
            return lookup;
        }
        let dropped = self
            .runner
            .drop_window(conversation, history, DropReason::Unreadable, &[]);
        if dropped.await.is_err() {
            return Lookup::Unavailable;
        }
        Lookup::Miss(None)
    }

    async fn fill(&self, lease: FillLease, window: &Window<Message>) {
        // A failure needs no handling: the next read is a miss.
        let outcome = self.run_fill(lease, window).await;
        self.runner.instruments.count_fill(outcome);
    }

    async fn invalidate(&self, conversation: ConversationId) -> bool {
        let history = self.runner.history();
        let dropped = self
            .runner
            .drop_window(conversation, history, DropReason::Unpublished, &[]);
        dropped.await.is_ok()
    }

    fn connection(&self) -> Option<u64> {
        let connection = self.runner.redis.connection()?;
        let overflows = self.overflows.load(Ordering::SeqCst);
        // An overflow ends the trust in a connection as its replacement does.
        Some((connection << OVERFLOW_BITS) + overflows + 1)
    }

    async fn connection_changed(&self, seen: Option<u64>) {
        let seen = seen.map(|number| number >> OVERFLOW_BITS);
        self.runner.redis.connection_changed(seen).await;
    }

    fn trust(&self, connection: Option<u64>) {
        self.trusted
            .store(connection.unwrap_or(UNTRUSTED), Ordering::SeqCst);
    }

    async fn claim_completion(&self, interval: Duration) -> bool {
        let args = [self.runner.history(), milliseconds(interval)];
        let claimed = self.run_completion(&self.completion.claim, &args).await;
        // Without a reply, no other process is known to complete them.
        claimed.is_none_or(|claimed| claimed == 1)
    }

    async fn record_completion(&self, is_complete: bool, interval: Duration) {
        let args = [
            self.runner.history(),
            milliseconds(interval),
            decimal(u8::from(is_complete)),
        ];
        // If this fails, a claim of this process ends after its interval.
        let _ = self.run_completion(&self.completion.record, &args).await;
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for RedisRecent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRecent").finish_non_exhaustive()
    }
}

/// Encodes a claim as the first arguments of the scripts that check it.
fn claim_args(claim: Claim<'_>) -> [Bytes; 2] {
    let (user, is_confirmed) = match claim {
        Claim::Unclaimed => ("", false),
        Claim::Unconfirmed(user) => (user.as_str(), false),
        Claim::Confirmed(user) => (user.as_str(), true),
    };
    let user = Bytes::copy_from_slice(user.as_bytes());
    [user, decimal(u8::from(is_confirmed))]
}

fn decimal(number: impl Copy + ToString) -> Bytes {
    Bytes::from(number.to_string())
}

fn milliseconds(duration: Duration) -> Bytes {
    decimal(duration.as_millis())
}
