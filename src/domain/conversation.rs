use chrono::{DateTime, Utc};

use super::{ConversationId, DeptId, Metadata, SessionId, Title, UserId};

/// A conversation as a request names it: its id, and the caller's claim of
/// whose it is. With a wrong claim the conversation does not exist.
#[derive(Clone, Debug)]
pub struct ConversationRef {
    /// The conversation.
    pub id: ConversationId,
    /// Whose it is said to be; nothing is compared when it is None.
    pub user_id: Option<UserId>,
}

/// A conversation as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// What it is called; None until it has a title.
    pub title: Option<Title>,
    /// The number of the newest message ever saved, 0 before the first.
    pub last_seq: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last saved to, truncated or updated.
    pub updated_at: DateTime<Utc>,
    /// Anything that the caller attached.
    pub metadata: Option<Metadata>,
    /// The conversation that it branched from.
    pub parent_id: Option<ConversationId>,
    /// The last message that it shares with its parent.
    pub branched_at_seq: Option<i64>,
}

/// A conversation to be created.
#[derive(Clone, Debug)]
pub struct NewConversation {
    /// Its id, the caller's or a new one.
    pub id: ConversationId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// What it is called; None leaves it to the first user message.
    pub title: Option<Title>,
    /// Anything that the caller attached.
    pub metadata: Option<Metadata>,
    /// The session that it was begun in.
    pub session_id: Option<SessionId>,
}

impl NewConversation {
    /// Whether `stored` is what creating this gave: a title may have come since.
    pub fn is_created_as(&self, stored: &Conversation) -> bool {
        self.id == stored.id
            && self.user_id == stored.user_id
            && self.dept_id == stored.dept_id
            && self.metadata == stored.metadata
            && (self.title.is_none() || self.title == stored.title)
    }
}

/// What UpdateConversation changes: None leaves a field, `Some(None)` clears it.
#[derive(Clone, Debug, Default)]
pub struct ConversationChanges {
    /// The title.
    pub title: Option<Option<Title>>,
    /// The metadata.
    pub metadata: Option<Option<Metadata>>,
}
