//! A conversation and its window in Redis, for tests.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use chrono::DateTime;
use conversation_memory::{
    domain::{Content, ConversationId, Message, MessageId, Metadata, Role, UserId, UuidV7},
    recent::{Announced, Lease, Lookup, RecentWindow, redis::RedisRecent},
    redis::Redis,
};
use uuid::Uuid;

use crate::redis_server::{attached, call, own_prefix, shared_url};

pub const TTL: Duration = Duration::from_mins(1);
/// The numbers of no messages.
#[expect(clippy::reversed_empty_ranges, reason = "it is meant to be empty")]
pub const NONE: RangeInclusive<i64> = 1..=0;
/// How long a write may take.
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
        content: content(&format!("message {seq}")),
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

pub fn seqs(messages: &[Message]) -> Vec<i64> {
    messages.iter().map(|message| message.seq).collect()
}

/// A window as a sidecar has it, of 12 messages.
pub fn recent(redis: &Redis) -> RedisRecent {
    RedisRecent::new(redis.clone(), Arc::new(UuidV7), TTL, 12)
}

/// One conversation, its window, and the key that this is kept under.
#[derive(Debug)]
pub struct Bench {
    pub recent: RedisRecent,
    pub id: ConversationId,
    pub prefix: String,
    pub key: String,
    url: String,
}

impl Bench {
    /// A new conversation on the shared server.
    pub async fn new() -> Self {
        Self::on(&shared_url(), &own_prefix()).await
    }

    pub async fn on(url: &str, prefix: &str) -> Self {
        Self::with(recent(&attached(url, prefix).await), url, prefix)
    }

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

    pub async fn announce(&self) -> Announced {
        self.recent.announce(self.id, LIMIT).await
    }

    pub async fn publish(&self, announced: Announced, seqs: RangeInclusive<i64>) {
        let messages = messages(self.id, seqs);
        self.recent.publish(announced, &owner(), &messages).await;
    }

    pub async fn save(&self, seqs: RangeInclusive<i64>) {
        self.publish(self.announce().await, seqs).await;
    }

    pub async fn newest(&self, limit: u32) -> Lookup {
        self.recent.newest(self.id, limit, 0).await
    }

    /// The last number and the numbers shown.
    pub async fn hit(&self, limit: u32) -> (i64, Vec<i64>) {
        match self.newest(limit).await {
            Lookup::Hit(window) => {
                assert_eq!(window.owner, owner());
                for shown in &window.messages {
                    assert_eq!(shown.conversation_id, self.id);
                }
                (window.last_seq, seqs(&window.messages))
            }
            other => panic!("no hit: {other:?}"),
        }
    }

    pub async fn is_miss(&self) -> bool {
        matches!(self.newest(10).await, Lookup::Miss(_))
    }

    pub async fn lease(&self) -> Lease {
        match self.newest(10).await {
            Lookup::Miss(Some(lease)) => lease,
            other => panic!("no lease: {other:?}"),
        }
    }

    /// A lease, though one may be out.
    pub async fn lease_again(&self) -> Lease {
        self.end_lease().await;
        self.lease().await
    }

    pub async fn fill(&self, lease: Lease, last_seq: i64, seqs: RangeInclusive<i64>, whole: bool) {
        let messages = messages(self.id, seqs);
        self.recent
            .fill(lease, &owner(), last_seq, &messages, whole)
            .await;
    }

    pub async fn evict(&self) {
        self.call(&["DEL", &self.key]).await;
    }

    pub async fn end_lease(&self) {
        self.call(&["HDEL", &self.key, "lease"]).await;
    }

    /// Puts all announced writes' deadlines into the past.
    pub async fn expire_all(&self) {
        for field in self.names("p:").await {
            self.call(&["HSET", &self.key, &field, "1"]).await;
        }
    }

    pub async fn pttl(&self) -> i64 {
        self.call(&["PTTL", &self.key]).await.parse().unwrap()
    }

    /// How many fields of a kind there are.
    pub async fn fields(&self, kind: &str) -> usize {
        self.names(kind).await.len()
    }

    async fn names(&self, kind: &str) -> Vec<String> {
        let fields = self.call(&["HKEYS", &self.key]).await;
        let names = fields.lines().filter(|line| line.starts_with(kind));
        names.map(str::to_owned).collect()
    }

    pub async fn call(&self, command: &[&str]) -> String {
        call(&self.url, command).await.unwrap()
    }
}
