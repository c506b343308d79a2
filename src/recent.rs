//! The recent window: the newest messages of a conversation, cached where every
//! process that uses the store can read them faster than from the store.
//!
//! The window is optional. Every method returns normally even if Redis has failed, and a window
//! that may be incomplete is treated as a miss. One rule keeps it correct: a writer announces
//! its write before the store commits and publishes it afterwards, and while a write is
//! announced the window is neither read nor filled.
//!
//! A write that could not be announced is recorded in the store as a pending invalidation. Windows
//! are read only after the pending invalidations have been completed once on the present
//! connection, by [`RecentWindow::invalidate`] and [`RecentWindow::trust`].

mod encoded;
pub mod in_process;
mod instruments;
pub mod none;
pub mod redis;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::encoded::{EncodedMessage, item};
use crate::domain::{ConversationId, ConversationRef, Message, UserId};

/// Minimum capacity of a window, in messages.
pub const WINDOW_MESSAGES: usize = 10;

/// Cache of the newest messages of conversations.
///
/// Only the owner of a conversation reaches its window. An operation of a caller who claims to be
/// the owner is executed if the window knows that user as the owner, or if the store has confirmed
/// the claim. Otherwise it has no effect, and its cost does not depend on whether there is a
/// window.
///
/// # Cancel safety
///
/// The futures of methods that consume an announcement must run to completion, for example on a
/// tracked task. If a write could not be announced, the window lacks that write until one of
/// these methods has dropped the window.
#[async_trait]
pub trait RecentWindow: Send + Sync + Debug {
    /// Announces a write that commits within `limit`, or not at all. Once the outcome is known,
    /// the announcement must be passed to one of the methods that consume it. Returns `None` if the
    /// window does not know the claimed user as the owner, and only for [`Claim::Unconfirmed`].
    async fn announce(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: Duration,
    ) -> Option<Announcement>;

    /// Adds committed messages to the window. They are consecutive, in order and not pinned.
    /// `uncompacted_tokens` are the tokens of the conversation after them.
    async fn publish(
        &self,
        announcement: Announcement,
        owner: &UserId,
        messages: &[Message],
        uncompacted_tokens: i64,
    );

    /// Ends the announcement of a write that was a replay of one committed up to
    /// `last_seq`. A window that ends before `last_seq` is dropped.
    async fn publish_replay(&self, announcement: Announcement, last_seq: i64);

    /// Drops the window, because messages have been removed, or pinned, or replaced by a summary.
    async fn retire(&self, announcement: Announcement);

    /// Withdraws an announcement. Only allowed if nothing was committed.
    async fn abort(&self, announcement: Announcement);

    /// Withdraws the announcement and drops the window, because the conversation
    /// does not exist or belongs to another user: a window can outlive its
    /// conversation.
    async fn forget(&self, announcement: Announcement);

    /// Leaves the announcement in place until its deadline, because it is unknown
    /// whether anything was committed.
    async fn leave(&self, announcement: Announcement);

    /// Reads the newest `limit` messages from the window, or all of them if some belong to groups.
    /// A window that ends before `min_seq` is stale and is dropped.
    async fn newest(
        &self,
        conversation: ConversationId,
        claim: Claim<'_>,
        limit: u32,
        min_seq: i64,
    ) -> Lookup;

    /// Fills a window with the newest messages from the store. Does nothing if a write was
    /// announced after the lease was granted.
    async fn fill(&self, lease: FillLease, window: &Window<Message>);

    /// Drops a window that lacks a write or contains what was removed. Returns whether it was
    /// dropped.
    async fn invalidate(&self, conversation: ConversationId) -> bool;

    /// Number of the present connection to the windows. `None` while they cannot be reached.
    fn connection(&self) -> Option<u64>;

    /// Waits until the connection is no longer `seen`, which [`Self::connection`] has returned.
    ///
    /// # Cancel safety
    ///
    /// The future can be dropped at any time, and the next call returns at once if the connection
    /// has changed in between.
    async fn connection_changed(&self, seen: Option<u64>);

    /// Permits reads over a connection only; over none with `None`. To be called with a connection when
    /// all invalidations that were pending after it had been established are complete, and with
    /// `None` when one of them cannot be completed.
    fn trust(&self, connection: Option<u64>);

    /// Returns whether this process is to complete the pending invalidations now: no other process
    /// whose store has the same history has claimed it, or recorded that they are complete, within
    /// `interval`. Also if the windows cannot be reached.
    async fn claim_completion(&self, interval: Duration) -> bool;

    /// Records for `interval` that this process has completed all pending invalidations, or, with
    /// `false`, that it could not.
    async fn record_completion(&self, is_complete: bool, interval: Duration);

    /// Whether other processes use the same windows. If not, a window never lacks a write, and no
    /// invalidation is ever pending.
    fn is_shared(&self) -> bool;

    /// Upper bound on messages in a window; 0 if there are no windows. A reader that was granted a lease
    /// reads at least this many messages from the store.
    fn capacity(&self) -> u32;
}

/// User whom a caller names as the owner of a conversation.
#[derive(Clone, Copy, Debug)]
pub enum Claim<'a> {
    /// The caller names no user and can use every conversation.
    Unclaimed,
    /// The caller names this user.
    Unconfirmed(&'a UserId),
    /// The caller names this user, and the store has confirmed that the conversation belongs to
    /// them.
    Confirmed(&'a UserId),
}

impl<'a> Claim<'a> {
    /// Returns the claim of a reference, before the store has confirmed it.
    pub fn of(conversation: &'a ConversationRef) -> Self {
        let user = conversation.user_id.as_ref();
        user.map_or(Self::Unclaimed, Self::Unconfirmed)
    }

    /// Returns the claim after the store has confirmed it.
    #[must_use]
    pub fn confirmed(self) -> Self {
        match self {
            Self::Unconfirmed(user) => Self::Confirmed(user),
            other => other,
        }
    }
}

/// Announcement of a write, or the record that it could not be announced.
#[derive(Debug)]
#[must_use = "an announcement must be passed to one of the methods that consume it"]
pub struct Announcement {
    conversation: ConversationId,
    /// History of the store when the write was announced.
    history: Bytes,
    /// Token of the announcement in the window. `None` if the write could not be announced.
    token: Option<String>,
    /// Number of the announcement in the windows of this process.
    number: Option<u64>,
    /// Token of a write that counts as not announced, because Redis did not reply, but that may
    /// exist in the window.
    stray: Option<String>,
    /// Time until which the window is not read.
    until: Instant,
}

impl Announcement {
    /// Creates the record that a write could not be announced.
    pub fn unannounced(conversation: ConversationId) -> Self {
        Self {
            conversation,
            history: Bytes::new(),
            token: None,
            number: None,
            stray: None,
            until: Instant::now(),
        }
    }

    /// Time until which the window is neither read nor filled because of this announcement. `None`
    /// if the write could not be announced.
    pub fn announced_until(&self) -> Option<Instant> {
        (self.token.is_some() || self.number.is_some()).then_some(self.until)
    }
}

/// Permission to fill a window, granted to one reader after a miss.
#[derive(Debug)]
pub struct FillLease {
    conversation: ConversationId,
    /// History of the store when the lease was granted.
    history: Bytes,
    id: String,
    /// Lease of a window of this process.
    guard: Option<in_process::LeaseGuard>,
}

/// Result of reading a window.
#[derive(Debug)]
pub enum Lookup {
    /// The window contains the requested messages.
    Hit(Box<Window<EncodedMessage>>),
    /// There is no window. The reader fills it if it was granted a lease.
    Miss(Option<FillLease>),
    /// A write is announced: the reader must read the store.
    Busy,
    /// The window contains fewer messages than requested, and older ones exist.
    Short,
    /// The window does not know the claimed user as the owner: the store must confirm the claim. Only
    /// for [`Claim::Unconfirmed`].
    OwnerUnknown,
    /// The window cannot be reached.
    Unavailable,
}

/// Content of a window, whose messages are of type `M`: [`Message`] when it is filled, and
/// [`EncodedMessage`] when it is read.
#[derive(Clone, Debug)]
pub struct Window<M> {
    /// Owner of the conversation.
    pub owner: UserId,
    /// Sequence number of the conversation's last message.
    pub last_seq: i64,
    /// Pinned messages, oldest first, without contexts. They can also be among `messages`.
    pub pinned: Vec<M>,
    /// Summary, if the conversation is compacted.
    pub summary: Option<M>,
    /// Number of the last message that the summary stands for; 0 if there is none.
    pub compacted_upto_seq: i64,
    /// Tokens of the conversation's messages that no summary stands for.
    pub uncompacted_tokens: i64,
    /// Newest messages that no summary stands for, oldest first, without contexts.
    pub messages: Vec<M>,
    /// Whether there are no older messages that no summary stands for.
    pub is_complete: bool,
}
