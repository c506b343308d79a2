//! The recent window: the newest messages of a conversation, kept where every
//! sidecar reads them faster than from the store.
//!
//! It is never needed. Every method answers, whatever has failed, and a window
//! that cannot be trusted is a miss. The rule that makes it safe: whoever
//! writes announces it before the store commits and publishes it afterwards;
//! while a write is announced nobody reads or fills the window.

pub mod none;
pub mod redis;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::domain::{ConversationId, Message, UserId};

/// How many messages a window keeps, unless more are asked for by default.
pub const WINDOW_MESSAGES: usize = 10;

/// The newest messages of conversations.
#[async_trait]
pub trait RecentWindow: Send + Sync + Debug {
    /// Says that a write to a conversation is about to be committed, at the
    /// latest `limit` from now. Must be followed, once the outcome is known,
    /// by one of the methods below that take what this returns.
    async fn announce(&self, conversation: ConversationId, limit: Duration) -> Announced;

    /// Shows messages that have been committed, in order and without a gap
    /// between them.
    async fn publish(&self, announced: Announced, owner: &UserId, messages: &[Message]);

    /// Says that a write turned out to be a replay of one that was committed up
    /// to `last_seq`: a window that does not show it is dropped.
    async fn publish_replay(&self, announced: Announced, last_seq: i64);

    /// Drops the window, because messages have been removed.
    async fn retire(&self, announced: Announced);

    /// Takes an announcement back. Only when nothing was committed.
    async fn abort(&self, announced: Announced);

    /// Takes an announcement back, because there is no such conversation, or not
    /// for this caller. A window of it may have outlived it, and is dropped.
    async fn forget(&self, announced: Announced);

    /// Leaves an announcement to its deadline, because nobody knows whether
    /// anything was committed.
    async fn leave(&self, announced: Announced);

    /// The newest `limit` messages, if the window has them. A window that ends
    /// before `min_seq` is stale and dropped.
    async fn newest(&self, conversation: ConversationId, limit: u32, min_seq: i64) -> Lookup;

    /// Fills a window from the store with the newest messages, oldest first, and
    /// the conversation's last number. `whole` says that there are no older
    /// ones. Does nothing when a write was announced since the lease was given.
    async fn fill(
        &self,
        lease: Lease,
        owner: &UserId,
        last_seq: i64,
        messages: &[Message],
        whole: bool,
    );

    /// How many messages a window keeps: a reader that was given a lease reads
    /// at least so many.
    fn capacity(&self) -> u32;
}

/// A write that was announced, or that could not be.
#[derive(Debug)]
#[must_use = "an announced write comes to one end or another"]
pub struct Announced {
    conversation: ConversationId,
    token: Option<String>,
}

/// The right to fill a window.
#[derive(Debug)]
pub struct Lease {
    conversation: ConversationId,
    id: String,
}

/// What a window answered.
#[derive(Debug)]
pub enum Lookup {
    /// The messages.
    Hit(Window),
    /// There is no window. Whoever has the lease fills it.
    Miss(Option<Lease>),
    /// A write is under way: read the store.
    Busy,
    /// The window has fewer messages than were asked for, and there are older ones.
    Short,
    /// The window cannot be reached.
    Unavailable,
}

/// The newest messages of a conversation.
#[derive(Debug)]
pub struct Window {
    /// Whose conversation it is.
    pub owner: UserId,
    /// The conversation's last number.
    pub last_seq: i64,
    /// The messages, oldest first, without contexts.
    pub messages: Vec<Message>,
}
