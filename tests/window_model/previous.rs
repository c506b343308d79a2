//! A sidecar of the version before, which shares windows with those of this version: its scripts,
//! and the parts of its client that concern windows.

use bytes::Bytes;
use conversation_memory::{
    domain::{ConversationId, Message, UserId},
    redis::{Redis, Reply, Script},
};

use crate::scripts_of_model;
use test_support::window::{LIMIT, TTL, conversation_id};

macro_rules! script {
    ($name:literal $(after $prefix:literal)?) => {
        scripts_of_model($name, concat!(
            $(include_str!(concat!("previous/", $prefix, ".lua")),)?
            include_str!("previous/common.lua"),
            include_str!(concat!("previous/", $name, ".lua"))
        ))
    };
}

/// Sidecar of the version before.
pub(crate) struct PreviousSidecar {
    redis: Redis,
    announce: Script,
    publish: Script,
    publish_replay: Script,
    abort: Script,
    newest: Script,
    fill: Script,
    drop: Script,
}

/// Result of a read.
pub(crate) enum PreviousLookup {
    Hit { last_seq: i64, seqs: Vec<i64> },
    Miss(Option<String>),
    OwnerUnknown,
    Other(String),
}

impl PreviousSidecar {
    pub(crate) fn new(redis: Redis) -> Self {
        Self {
            redis,
            announce: script!("announce" after "owner"),
            publish: script!("publish"),
            publish_replay: script!("publish_replay"),
            abort: script!("abort"),
            newest: script!("newest" after "owner"),
            fill: script!("fill"),
            drop: script!("drop"),
        }
    }

    /// Announces a write, and returns its token. `None` if the window does not know the owner.
    pub(crate) async fn announce(
        &self,
        id: ConversationId,
        user: &UserId,
        is_confirmed: bool,
    ) -> Option<String> {
        let token = conversation_id().as_uuid().simple().to_string();
        let claim = claim(user, is_confirmed);
        let args = [
            &claim[..],
            &["", &token, &milliseconds(LIMIT), &milliseconds(TTL)],
        ];
        let reply = self.run(&self.announce, id, &args.concat()).await;
        (outcome(&reply) == "announced").then_some(token)
    }

    pub(crate) async fn publish(
        &self,
        id: ConversationId,
        token: &str,
        owner: &UserId,
        message: &Message,
    ) {
        let seq = message.seq.to_string();
        let args = [
            "",
            token,
            &milliseconds(TTL),
            "10",
            "1048576",
            owner.as_str(),
            &seq,
            &seq,
            "0",
            "0",
            &seq,
            &json(message),
        ];
        self.run(&self.publish, id, &args).await;
    }

    pub(crate) async fn publish_replay(&self, id: ConversationId, token: &str, last_seq: i64) {
        let args = ["", token, &milliseconds(TTL), &last_seq.to_string()];
        self.run(&self.publish_replay, id, &args).await;
    }

    pub(crate) async fn retire(&self, id: ConversationId, token: &str) {
        let args = ["", &milliseconds(TTL), "removed", token];
        self.run(&self.drop, id, &args).await;
    }

    pub(crate) async fn abort(&self, id: ConversationId, token: &str) {
        self.run(&self.abort, id, &["", token, "0"]).await;
    }

    pub(crate) async fn newest(
        &self,
        id: ConversationId,
        user: &UserId,
        is_confirmed: bool,
    ) -> PreviousLookup {
        let lease = conversation_id().as_uuid().simple().to_string();
        let claim = claim(user, is_confirmed);
        let args = [
            &claim[..],
            &["", "10", "0", &lease, "3000", &milliseconds(TTL)],
        ];
        let reply = self.run(&self.newest, id, &args.concat()).await;
        match outcome(&reply).as_str() {
            "hit" => {
                let last_seq = reply[3].integer().unwrap();
                // All that follow the numbers are messages, since none is pinned.
                let seqs: Option<Vec<i64>> = reply[8..].iter().map(decode).collect();
                let Some(seqs) = seqs else {
                    let args = ["", &milliseconds(TTL), "unreadable"];
                    self.run(&self.drop, id, &args).await;
                    return PreviousLookup::Miss(None);
                };
                PreviousLookup::Hit { last_seq, seqs }
            }
            "miss" => {
                let lease = reply[2].text().unwrap();
                PreviousLookup::Miss((!lease.is_empty()).then(|| lease.to_owned()))
            }
            "owner_unknown" => PreviousLookup::OwnerUnknown,
            other => PreviousLookup::Other(other.to_owned()),
        }
    }

    pub(crate) async fn fill(
        &self,
        id: ConversationId,
        lease: &str,
        owner: &UserId,
        (last_seq, messages, is_complete): (i64, &[Message], bool),
    ) {
        let ttl = milliseconds(TTL);
        let mut args: Vec<String> = ["", lease, &ttl, owner.as_str()].map(str::to_owned).into();
        args.push(last_seq.to_string());
        args.push(u8::from(is_complete).to_string());
        args.extend(["0", "0", "0", "0"].map(str::to_owned));
        for message in messages {
            args.extend([message.seq.to_string(), json(message)]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.run(&self.fill, id, &args).await;
    }

    async fn run(&self, script: &Script, id: ConversationId, args: &[&str]) -> Vec<Reply> {
        let key = self.redis.key(format!("history:{id}:recent"));
        let args: Vec<Bytes> = args
            .iter()
            .map(|arg| Bytes::copy_from_slice(arg.as_bytes()))
            .collect();
        let reply = self.redis.run(script, &key, &args).await;
        reply.unwrap().list().unwrap()
    }
}

fn claim(user: &UserId, is_confirmed: bool) -> [&str; 2] {
    [user.as_str(), if is_confirmed { "1" } else { "0" }]
}

fn outcome(reply: &[Reply]) -> String {
    reply[0].text().unwrap().to_owned()
}

fn milliseconds(duration: std::time::Duration) -> String {
    duration.as_millis().to_string()
}

fn json(message: &Message) -> String {
    format!(r#"{{"v":1,"seq":{},"id":"{}"}}"#, message.seq, message.id)
}

/// Decodes a message as far as it is tested. `None` if it has another format.
fn decode(value: &Reply) -> Option<i64> {
    let text = value.text().ok()?.strip_prefix(r#"{"v":1,"seq":"#)?;
    text.split(',').next()?.parse().ok()
}
