//! Fixture of a conversation with its recent window, in Redis or in the process.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use conversation_memory::{
    domain::{Content, ConversationId, Message, MessageId, Metadata, Role, UserId, UuidV7},
    recent::{
        Announcement, Claim, EncodedMessage, FillLease, Lookup, RecentWindow, Window,
        in_process::InProcessRecent,
        redis::{RedisRecent, StoreHistory},
    },
    redis::Redis,
};
use uuid::Uuid;

use crate::redis_server::{call, connect_and_wait, shared_url, unique_prefix};

/// TTL of a window.
pub const TTL: Duration = Duration::from_mins(1);
/// Empty range of sequence numbers.
#[expect(clippy::reversed_empty_ranges, reason = "it is meant to be empty")]
pub const NONE: RangeInclusive<i64> = 1..=0;
/// Time limit of an announced write.
pub const LIMIT: Duration = Duration::from_secs(8);

pub fn conversation_id() -> ConversationId {
    ConversationId::from_uuid(Uuid::now_v7())
}

pub fn owner() -> UserId {
    UserId::parse("ann").unwrap()
}

pub fn content(text: &str) -> Content {
    Content::from_stored(text.to_owned())
}

pub fn message(conversation_id: ConversationId, seq: i64) -> Message {
    let metadata = format!(r#"{{"seq":{seq}.5}}"#);
    Message {
        id: MessageId::from_uuid(Uuid::from_u128(seq.cast_unsigned().into())),
        conversation_id,
        seq,
        role: Role::Assistant,
        name: None,
        content: content(&format!("message {seq}")),
        parts: Vec::new(),
        token_count: Some(3),
        pinned: false,
        redacted: false,
        tokens_used: Some(7),
        latency_ms: None,
        created_at: DateTime::from_timestamp_micros(1_700_000_000_123_456 + seq).unwrap(),
        metadata: Metadata::parse(serde_json::from_str(&metadata).unwrap(), 100).ok(),
        contexts: Vec::new(),
    }
}

pub fn messages(id: ConversationId, seqs: RangeInclusive<i64>) -> Vec<Message> {
    seqs.map(|seq| message(id, seq)).collect()
}

/// Creates the content of a window of [`owner`].
pub fn window(last_seq: i64, messages: Vec<Message>, is_complete: bool) -> Window<Message> {
    Window {
        owner: owner(),
        last_seq,
        pinned: Vec::new(),
        summary: None,
        compacted_upto_seq: 0,
        uncompacted_tokens: 3 * last_seq,
        messages,
        is_complete,
    }
}

/// Tokens of a conversation that ends with the messages.
pub fn last_tokens(messages: &[Message]) -> i64 {
    messages.last().map_or(0, |last| 3 * last.seq)
}

pub fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

/// Sequence numbers of messages that were read from a window.
pub fn encoded_seqs(messages: &[EncodedMessage]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

/// Creates the windows of one sidecar, with a capacity of 12 messages. They can be read over the
/// present connection.
pub fn recent(redis: &Redis) -> RedisRecent {
    recent_of(redis, Arc::new(|| Bytes::from_static(b"store")))
}

/// Creates windows like [`recent`], for a store with a history.
pub fn recent_of(redis: &Redis, history: StoreHistory) -> RedisRecent {
    let recent = RedisRecent::new(redis.clone(), Arc::new(UuidV7), TTL, 12, history);
    trust(&recent);
    recent
}

/// Permits reads over the present connection.
pub fn trust(recent: &impl RecentWindow) {
    if let Some(connection) = recent.connection() {
        recent.trust(Some(connection));
    }
}

/// One conversation with its window.
#[derive(Debug)]
pub struct WindowFixture<R = RedisRecent> {
    pub recent: R,
    pub id: ConversationId,
    /// Key prefix of the sidecar; empty without Redis.
    pub prefix: String,
    /// Key of the window in Redis; empty without Redis.
    pub key: String,
    url: String,
}

/// Recent window that a suite tests.
pub trait TestedWindow: RecentWindow + Sized {
    /// Creates a conversation with a window of its own, with a capacity of 12 messages.
    fn fixture() -> impl Future<Output = WindowFixture<Self>>;

    /// Deletes all that is stored of the conversation.
    fn evict(fixture: &WindowFixture<Self>) -> impl Future<Output = ()>;

    /// Lets the present lease end.
    fn end_lease(fixture: &WindowFixture<Self>) -> impl Future<Output = ()>;

    /// Lets the deadlines of all announced writes pass.
    fn expire_announcements(fixture: &WindowFixture<Self>) -> impl Future<Output = ()>;

    /// Whether nothing is stored of the conversation.
    fn is_forgotten(fixture: &WindowFixture<Self>) -> impl Future<Output = bool>;

    /// Number of fields of the window whose names start with `prefix`; `None` without Redis.
    fn number_of_fields(
        fixture: &WindowFixture<Self>,
        prefix: &str,
    ) -> impl Future<Output = Option<usize>>;
}

impl TestedWindow for RedisRecent {
    async fn fixture() -> WindowFixture<Self> {
        WindowFixture::new().await
    }

    async fn evict(fixture: &WindowFixture<Self>) {
        fixture.call(&["DEL", &fixture.key]).await;
    }

    async fn end_lease(fixture: &WindowFixture<Self>) {
        fixture.call(&["HDEL", &fixture.key, "lease"]).await;
    }

    async fn expire_announcements(fixture: &WindowFixture<Self>) {
        for field in fixture.field_names("p:").await {
            fixture.call(&["HSET", &fixture.key, &field, "1"]).await;
        }
    }

    async fn is_forgotten(fixture: &WindowFixture<Self>) -> bool {
        fixture.pttl().await == -2
    }

    async fn number_of_fields(fixture: &WindowFixture<Self>, prefix: &str) -> Option<usize> {
        Some(fixture.fields(prefix).await)
    }
}

/// The time of the test must be paused.
impl TestedWindow for InProcessRecent {
    async fn fixture() -> WindowFixture<Self> {
        WindowFixture {
            recent: Self::new(12, 64 << 20),
            id: conversation_id(),
            prefix: String::new(),
            key: String::new(),
            url: String::new(),
        }
    }

    async fn evict(fixture: &WindowFixture<Self>) {
        fixture.recent.evict(fixture.id);
    }

    async fn end_lease(_fixture: &WindowFixture<Self>) {
        tokio::time::advance(Duration::from_secs(3)).await;
    }

    async fn expire_announcements(_fixture: &WindowFixture<Self>) {
        tokio::time::advance(LIMIT + Duration::from_secs(1)).await;
    }

    async fn is_forgotten(fixture: &WindowFixture<Self>) -> bool {
        fixture.recent.stored_conversations() == 0
    }

    async fn number_of_fields(_fixture: &WindowFixture<Self>, _prefix: &str) -> Option<usize> {
        None
    }
}

impl WindowFixture {
    /// Creates a conversation on the shared server.
    pub async fn new() -> Self {
        Self::on(&shared_url(), &unique_prefix()).await
    }

    /// Creates a conversation on the server at `url`.
    pub async fn on(url: &str, prefix: &str) -> Self {
        Self::with(recent(&connect_and_wait(url, prefix).await), url, prefix)
    }

    /// Creates a conversation on the server at `url`, to which `recent` is connected
    /// with the key prefix `prefix`.
    pub fn with(recent: RedisRecent, url: &str, prefix: &str) -> Self {
        let id = conversation_id();
        Self {
            recent,
            id,
            prefix: prefix.to_owned(),
            key: format!("{prefix}history:{id}:recent"),
            url: url.to_owned(),
        }
    }

    /// Remaining TTL of the window in milliseconds; -2 if there is none.
    pub async fn pttl(&self) -> i64 {
        self.call(&["PTTL", &self.key]).await.parse().unwrap()
    }

    /// Number of fields of the window whose names start with `prefix`.
    pub async fn fields(&self, prefix: &str) -> usize {
        self.field_names(prefix).await.len()
    }

    /// Names of the fields of the window that start with `prefix`.
    pub async fn field_names(&self, prefix: &str) -> Vec<String> {
        let fields = self.call(&["HKEYS", &self.key]).await;
        let names = fields.lines().filter(|name| name.starts_with(prefix));
        names.map(str::to_owned).collect()
    }

    /// Calls a command of Redis and returns its reply.
    pub async fn call(&self, command: &[&str]) -> String {
        call(&self.url, command).await.unwrap()
    }
}

impl<R: TestedWindow> WindowFixture<R> {
    pub async fn announce(&self) -> Announcement {
        let announced = self.recent.announce(self.id, Claim::Unclaimed, LIMIT);
        announced.await.unwrap()
    }

    pub async fn publish(&self, announcement: Announcement, seqs: RangeInclusive<i64>) {
        let messages = messages(self.id, seqs);
        self.recent
            .publish(announcement, &owner(), &messages, last_tokens(&messages))
            .await;
    }

    /// Announces and publishes messages.
    pub async fn save(&self, seqs: RangeInclusive<i64>) {
        self.publish(self.announce().await, seqs).await;
    }

    /// Reads the window over the present connection.
    pub async fn newest(&self, limit: u32) -> Lookup {
        trust(&self.recent);
        self.recent
            .newest(self.id, Claim::Unclaimed, limit, 0)
            .await
    }

    /// Reads a hit, and returns the last sequence number and those of the messages.
    pub async fn hit(&self, limit: u32) -> (i64, Vec<i64>) {
        match self.newest(limit).await {
            Lookup::Hit(window) => {
                assert_eq!(window.owner, owner());
                for encoded in &window.messages {
                    let message = encoded.decode().unwrap();
                    assert_eq!(message.conversation_id, self.id.to_string());
                    assert_eq!(message.seq, encoded.seq);
                }
                (window.last_seq, encoded_seqs(&window.messages))
            }
            other => panic!("expected a hit: {other:?}"),
        }
    }

    pub async fn is_miss(&self) -> bool {
        matches!(self.newest(10).await, Lookup::Miss(_))
    }

    /// Reads a miss and returns its lease.
    pub async fn lease(&self) -> FillLease {
        match self.newest(10).await {
            Lookup::Miss(Some(lease)) => lease,
            other => panic!("expected a lease: {other:?}"),
        }
    }

    /// Ends the current lease and returns a new one.
    pub async fn new_lease(&self) -> FillLease {
        self.end_lease().await;
        self.lease().await
    }

    pub async fn fill(
        &self,
        lease: FillLease,
        last_seq: i64,
        seqs: RangeInclusive<i64>,
        whole: bool,
    ) {
        let window = window(last_seq, messages(self.id, seqs), whole);
        self.recent.fill(lease, &window).await;
    }

    /// Deletes the window.
    pub async fn evict(&self) {
        R::evict(self).await;
    }

    pub async fn end_lease(&self) {
        R::end_lease(self).await;
    }

    /// Moves the deadlines of all announced writes into the past.
    pub async fn expire_announcements(&self) {
        R::expire_announcements(self).await;
    }

    /// Whether the window, if it is in Redis, has this number of fields with names that start with
    /// the given prefix.
    pub async fn has_fields(&self, prefix: &str, number: usize) -> bool {
        let fields = R::number_of_fields(self, prefix).await;
        fields.is_none_or(|fields| fields == number)
    }
}
