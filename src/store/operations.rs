//! Arguments and outcomes of the operations of [`Store`](super::Store).

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::domain::{
    Content, Conversation, ConversationId, ConversationRef, DeptId, Digest, Message, MessageId,
    NewMessage, RequestId, SessionId, Title, UserId,
};

/// Condition on which a write records a pending invalidation, in the same transaction. Recent windows
/// that it makes stale are then dropped by whichever process finds the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Never: there are no recent windows.
    Never,
    /// If the write executes after this time, until which it is announced in the window. A server
    /// that was frozen can execute a statement long after the client has stopped waiting.
    After(Instant),
    /// Always: the write could not be announced.
    Always,
}

/// Conversation whose recent window must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingInvalidation {
    /// Conversation, which may have been deleted.
    pub conversation: ConversationId,
    /// Identity of the latest write that recorded it.
    pub mark: i64,
}

/// Start and direction of a page of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Messages with higher numbers, in ascending order.
    After(i64),
    /// Messages with lower numbers, in descending order.
    Before(i64),
}

impl Bound {
    /// Returns the bound with the same direction that starts at another number.
    #[must_use]
    pub fn past(self, seq: i64) -> Self {
        match self {
            Self::After(_) => Self::After(seq),
            Self::Before(_) => Self::Before(seq),
        }
    }
}

/// Branch to create.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Conversation to branch from.
    pub parent: ConversationRef,
    /// Number of the last message that is shared with the parent, 1 or more.
    pub at_seq: i64,
    /// Id of the branch, which must be new.
    pub id: ConversationId,
    /// Title of the branch; `None` uses the title of the parent.
    pub title: Option<Title>,
    /// Time of the creation.
    pub at: DateTime<Utc>,
}

/// State of the store's data that a read needs at least. A store with replicas may read from one that
/// has reached it; every other one reads the latest state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinState {
    /// Latest state, which shows all acknowledged writes.
    Latest,
    /// State at a position of the write-ahead log. It also shows all writes that were acknowledged
    /// longer ago than the maximum lag of the replicas, and those of this process.
    Position(u64),
}

impl MinState {
    /// Any state within the maximum lag.
    pub const ANY: Self = Self::Position(0);
}

/// Query for a page of a user's conversations.
#[derive(Clone, Debug)]
pub struct ConversationQuery {
    /// Owner of the conversations.
    pub user_id: UserId,
    /// Department of the conversations; `None` includes all departments.
    pub dept_id: Option<DeptId>,
    /// [`ConversationPage::next`] of the previous page; `None` for the first page.
    pub after: Option<i64>,
    /// State that is read at least: [`ConversationPage::state`] of the previous page.
    pub state: MinState,
    /// Maximum number of conversations.
    pub limit: u32,
}

/// Page of conversations.
#[derive(Clone, Debug)]
pub struct ConversationPage {
    /// Conversations, latest activity first.
    pub conversations: Vec<Conversation>,
    /// Position from which the next page continues; `None` on the last page.
    pub next: Option<i64>,
    /// State that the next page needs in order to continue this one.
    pub state: MinState,
}

/// Newest messages of a conversation, in one consistent read.
#[derive(Clone, Debug, PartialEq)]
pub struct Newest {
    /// Conversation.
    pub conversation: Conversation,
    /// Newest pinned messages, at most [`Self::MAX_PINNED`], in ascending order. They can also be
    /// among `messages`.
    pub pinned: Vec<Message>,
    /// Summary, if the conversation is compacted.
    pub summary: Option<Message>,
    /// Newest messages that no summary stands for, in ascending order.
    pub messages: Vec<Message>,
    /// Whether older messages may follow although `messages` has fewer than the limit: a read of
    /// large messages ends early.
    pub is_cut: bool,
    /// Whether no write to the conversation was in progress. Otherwise a recent window must not be
    /// filled: the announcement of that write may have expired.
    pub is_settled: bool,
}

impl Newest {
    /// Upper bound on the pinned messages of a history.
    pub const MAX_PINNED: u32 = 32;
}

/// Identity of a request, by which a retry is recognized.
#[derive(Clone, Debug)]
pub struct RequestIdentity {
    /// Idempotency key that the caller chose.
    pub id: RequestId,
    /// Digest of the request's content. A retry has the same.
    pub digest: Digest,
}

/// Turn to save.
///
/// The checks are, in this order:
///
/// 1. The conversation exists, and the caller owns it.
/// 2. A known `request` is replayed if its content is the same, and otherwise rejected.
/// 3. If all message ids were chosen by the caller and are stored in this conversation, in this
///    order and with this content, the save is replayed.
/// 4. The conversation ends at `expected_last_seq`.
/// 5. The chosen message ids are not in use by other messages of the conversation.
#[derive(Clone, Debug)]
pub struct Append {
    /// Conversation to append to.
    pub conversation: ConversationRef,
    /// Messages of the turn, in order: 1 to [`NewMessage::MAX_PER_SAVE`].
    pub messages: Vec<NewMessage>,
    /// Identity of the request; `None` if the caller sent no idempotency key.
    pub request: Option<RequestIdentity>,
    /// Number at which the conversation must end; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Session of the turn, which becomes attached to the conversation.
    pub session_id: Option<SessionId>,
    /// Title that is set if the conversation has none, and the index of the message that it was
    /// derived from; `None` sets none.
    pub title: Option<(Title, usize)>,
    /// Whether the save records a pending invalidation.
    pub invalidation: Invalidation,
    /// Time of the save.
    pub at: DateTime<Utc>,
}

impl Append {
    /// Approximate size of all messages, with their contexts and the data of blobs, in bytes.
    pub fn size(&self) -> usize {
        let size = |message: &NewMessage| message.size() + message.blob_bytes();
        self.messages.iter().map(size).sum()
    }

    /// Number of tokens of all messages.
    pub fn tokens(&self) -> i64 {
        let counts = self
            .messages
            .iter()
            .filter_map(|message| message.token_count);
        counts.map(i64::from).sum()
    }

    /// Whether a message is pinned.
    pub fn has_pinned(&self) -> bool {
        self.messages.iter().any(|message| message.pinned)
    }

    /// Returns whether a retry of this save would be recognized.
    pub fn is_repeatable(&self) -> bool {
        self.request.is_some() || self.messages.iter().all(|message| message.id_chosen)
    }
}

/// Outcome of an [`Append`].
#[derive(Clone, Debug, PartialEq)]
pub enum Appended {
    /// The turn was saved by this call.
    Saved {
        /// Owner of the conversation.
        owner: UserId,
        /// Number of the turn's first message.
        first_seq: i64,
        /// Tokens of the conversation's messages that no summary stands for.
        uncompacted_tokens: i64,
    },
    /// The turn was saved by an earlier call.
    Replayed {
        /// Number of the turn's last message.
        last_seq: i64,
        /// Messages of the turn, without contexts and without those that were removed since.
        messages: Vec<Message>,
    },
}

/// Removal of the messages after a number.
#[derive(Clone, Debug)]
pub struct Truncation {
    /// Conversation to truncate.
    pub conversation: ConversationRef,
    /// Number of the last message to keep; 0 removes all.
    pub after_seq: i64,
    /// Identity of the request; `None` if the caller sent no idempotency key.
    pub request: Option<RequestIdentity>,
    /// Number at which the conversation must end; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Whether the truncation records a pending invalidation.
    pub invalidation: Invalidation,
    /// Time of the truncation.
    pub at: DateTime<Utc>,
}

/// Outcome of a [`Truncation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Number of removed messages. A replay returns that of the first call.
    pub removed: i64,
    /// Last number of the conversation, which a truncation does not change.
    pub last_seq: i64,
}

/// Replacement of a conversation's first messages in histories by a summary.
///
/// The checks are, in this order:
///
/// 1. The conversation exists, and the caller owns it.
/// 2. A known `request` is replayed if its content is the same, and otherwise rejected.
/// 3. The conversation ends at `expected_last_seq`.
/// 4. It does not end before `upto_seq`.
#[derive(Clone, Debug)]
pub struct Compaction {
    /// Conversation to compact.
    pub conversation: ConversationRef,
    /// Number of the last message that the summary stands for; 0 removes the summary.
    pub upto_seq: i64,
    /// Summary; empty only if `upto_seq` is 0.
    pub summary: Content,
    /// Id of the summary.
    pub summary_id: MessageId,
    /// Tokens of the summary in a model's input.
    pub token_count: i32,
    /// Identity of the request; `None` if the caller sent no idempotency key.
    pub request: Option<RequestIdentity>,
    /// Number at which the conversation must end; `None` skips the check.
    pub expected_last_seq: Option<i64>,
    /// Whether the compaction records a pending invalidation.
    pub invalidation: Invalidation,
    /// Time of the compaction.
    pub at: DateTime<Utc>,
}

/// Redaction of messages in all conversations that contain them.
#[derive(Clone, Debug)]
pub struct Redaction {
    /// Conversation that contains the messages.
    pub conversation: ConversationRef,
    /// Numbers of the messages.
    pub seqs: Vec<i64>,
    /// Conversations in whose windows the redaction is announced.
    pub announced: Vec<ConversationId>,
    /// Whether the redaction records pending invalidations of these. It records one of each other
    /// conversation that it changes, unless there are no windows.
    pub invalidation: Invalidation,
}

/// Outcome of a redaction.
#[derive(Clone, Debug)]
pub struct Redacted {
    /// Messages without their texts, in ascending order.
    pub messages: Vec<Message>,
    /// Conversations that contain any of them.
    pub conversations: Vec<ConversationId>,
}

/// Change of the owner of a conversation and its family.
#[derive(Clone, Debug)]
pub struct OwnerChange {
    /// Conversation, with the owner that it must have unless it has the new one.
    pub conversation: ConversationRef,
    /// User to whom the conversations belong afterwards.
    pub owner: UserId,
    /// Department of the new owner; `None` keeps those of the conversations.
    pub dept_id: Option<DeptId>,
    /// Conversations in whose windows the change is announced.
    pub announced: Vec<ConversationId>,
    /// Whether the change records pending invalidations of these. It records one of each other
    /// conversation that it changes, unless there are no windows.
    pub invalidation: Invalidation,
}
