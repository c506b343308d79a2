use chrono::{DateTime, Utc};

use super::{ConversationId, DeptId, SessionId, UserId};

/// Reference of a request to a session: its id, and the user that the caller claims. With
/// a wrong user the session is treated as missing.
#[derive(Clone, Debug)]
pub struct SessionRef {
    /// Id of the session.
    pub id: SessionId,
    /// Claimed user; `None` accepts any user.
    pub user_id: Option<UserId>,
}

/// Live session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Id.
    pub id: SessionId,
    /// User.
    pub user_id: UserId,
    /// Department of the user.
    pub dept_id: Option<DeptId>,
    /// Current conversation; `None` before the first turn.
    pub conversation_id: Option<ConversationId>,
    /// Time at which the session started or was restored.
    pub created_at: DateTime<Utc>,
    /// Time of the last use.
    pub last_active_at: DateTime<Utc>,
    /// Time at which the session expires unless it is used again.
    pub expires_at: DateTime<Utc>,
}

/// Session to be started or restored.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Id.
    pub id: SessionId,
    /// User.
    pub user_id: UserId,
    /// Department of the user.
    pub dept_id: Option<DeptId>,
    /// Current conversation; `None` before the first turn.
    pub conversation_id: Option<ConversationId>,
}
