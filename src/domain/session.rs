use chrono::{DateTime, Utc};

use super::{ConversationId, DeptId, SessionId, UserId};

/// A session as a request names it: its id, and the caller's claim of whose it is. With
/// a wrong claim the session does not exist.
#[derive(Clone, Debug)]
pub struct SessionRef {
    /// The session.
    pub id: SessionId,
    /// Whose it is said to be; nothing is compared when it is None.
    pub user_id: Option<UserId>,
}

/// A live session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// The conversation that it is on.
    pub conversation_id: Option<ConversationId>,
    /// When it began, or was restored.
    pub created_at: DateTime<Utc>,
    /// When it was last used.
    pub last_active_at: DateTime<Utc>,
    /// When it ends unless it is used again.
    pub expires_at: DateTime<Utc>,
}

/// A session to be started or restored.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// The conversation that it is on.
    pub conversation_id: Option<ConversationId>,
}
