use super::parse::{conversation_id, optional};
use crate::{
    domain::{ConversationRef, SessionId, SessionRef, UserId},
    rpc::field::{FieldError, InField as _},
};

/// What requests claim of whose a conversation or a session is. Only here a request's
/// conversation or session is named, so that no call forgets to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerScope {
    /// Whether each request must say it.
    pub(crate) are_required: bool,
}

impl OwnerScope {
    /// The user that a request claims.
    pub(crate) fn user(self, text: &str) -> Result<Option<UserId>, FieldError> {
        if self.are_required {
            return UserId::parse(text).map(Some).in_field("user_id");
        }
        optional(text, "user_id", UserId::parse)
    }

    /// The conversation that a request names, with the claim of whose it is.
    pub(crate) fn conversation(self, id: &str, user: &str) -> Result<ConversationRef, FieldError> {
        self.conversation_at("conversation_id", id, user)
    }

    /// The same, of a request that has the id in another field.
    pub(crate) fn conversation_at(
        self,
        path: &str,
        id: &str,
        user: &str,
    ) -> Result<ConversationRef, FieldError> {
        Ok(ConversationRef {
            id: conversation_id(id, path)?,
            user_id: self.user(user)?,
        })
    }

    /// The session that a request names, with the claim of whose it is.
    pub(crate) fn session(self, id: &str, user: &str) -> Result<SessionRef, FieldError> {
        Ok(SessionRef {
            id: SessionId::parse(id).in_field("session_id")?,
            user_id: self.user(user)?,
        })
    }
}
