use chrono::{DateTime, Utc};

use super::{ConversationId, DeptId, Metadata, SessionId, Title, UserId};

/// Reference of a request to a conversation: its id, and the owner that the caller
/// claims. With a wrong owner the conversation is treated as missing.
#[derive(Clone, Debug)]
pub struct ConversationRef {
    /// Id of the conversation.
    pub id: ConversationId,
    /// Claimed owner; `None` accepts any owner.
    pub user_id: Option<UserId>,
}

/// Conversation as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Id.
    pub id: ConversationId,
    /// Owner.
    pub user_id: UserId,
    /// Department of the owner.
    pub dept_id: Option<DeptId>,
    /// Title; `None` until it has one.
    pub title: Option<Title>,
    /// Highest number that was ever assigned to a message; 0 before the first.
    pub last_seq: i64,
    /// Time of creation.
    pub created_at: DateTime<Utc>,
    /// Time of the last save, truncation or update.
    pub updated_at: DateTime<Utc>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
    /// Conversation that this one branched from; `None` if it is no branch.
    pub parent_id: Option<ConversationId>,
    /// Number of the last message that is shared with the parent; `None` if it is no branch.
    pub branched_at_seq: Option<i64>,
    /// Number of the last message that histories replace by a summary; 0 if it is not compacted.
    pub compacted_upto_seq: i64,
    /// Tokens of the messages that no summary stands for: an estimate after truncations and in
    /// branches.
    pub uncompacted_tokens: i64,
}

impl Conversation {
    /// Bytes that a response accounts for the conversation, as [`Metadata::footprint`].
    pub fn footprint(&self) -> usize {
        /// Upper bound on the bytes of ids, times and numbers.
        const FIXED: usize = 256;
        let texts = [
            Some(self.user_id.as_str()),
            self.dept_id.as_ref().map(DeptId::as_str),
            self.title.as_ref().map(Title::as_str),
        ];
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        FIXED + texts + self.metadata.as_ref().map_or(0, Metadata::footprint)
    }
}

/// Conversation to be created.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Id, chosen by the caller or generated.
    pub id: ConversationId,
    /// Owner.
    pub user_id: UserId,
    /// Department of the owner.
    pub dept_id: Option<DeptId>,
    /// Title; `None` derives it from the first user message.
    pub title: Option<Title>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
    /// Session that the conversation is created in.
    pub session_id: Option<SessionId>,
    /// Whether the user's list contains the conversation before the first message is saved.
    pub is_listed: bool,
    /// Whether the id can be that of a deleted conversation whose messages are contained in branches
    /// of the same user. The numbers of messages continue then.
    pub reuses_id: bool,
}

impl NewConversation {
    /// Whether `stored` is the outcome of creating this conversation. A title may have been
    /// derived since.
    pub fn is_created_as(&self, stored: &Conversation) -> bool {
        self.id == stored.id
            && self.user_id == stored.user_id
            && self.dept_id == stored.dept_id
            && self.metadata == stored.metadata
            && (self.title.is_none() || self.title == stored.title)
    }
}

/// Changes of a conversation: `None` keeps a field, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct ConversationChanges {
    /// New title.
    pub title: Option<Option<Title>>,
    /// New metadata.
    pub metadata: Option<Option<Metadata>>,
}
