use super::parse::{conversation_id, optional};
use crate::{
    domain::{ConversationRef, SessionId, SessionRef, UserId},
    rpc::field::{FieldViolation, InField as _},
};

/// Parser of the conversation or session that a request names, together with the user that must
/// own it. No other code parses them, so that no method omits the check of the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnerScope {
    /// Whether every request must have a `user_id`.
    pub(crate) is_required: bool,
}

impl OwnerScope {
    /// Parses the user in a request; `None` if it is empty and not required.
    pub(crate) fn user(self, text: &str) -> Result<Option<UserId>, FieldViolation> {
        if self.is_required {
            return UserId::parse(text).map(Some).in_field("user_id");
        }
        optional(text, "user_id", UserId::parse)
    }

    /// Parses the conversation in the field `conversation_id`, and its user.
    pub(crate) fn conversation(
        self,
        id: &str,
        user: &str,
    ) -> Result<ConversationRef, FieldViolation> {
        self.conversation_at("conversation_id", id, user)
    }

    /// Parses the conversation in the field at `path`, and its user.
    pub(crate) fn conversation_at(
        self,
        path: &str,
        id: &str,
        user: &str,
    ) -> Result<ConversationRef, FieldViolation> {
        Ok(ConversationRef {
            id: conversation_id(id, path)?,
            user_id: self.user(user)?,
        })
    }

    /// Parses the session in the field `session_id`, and its user.
    pub(crate) fn session(self, id: &str, user: &str) -> Result<SessionRef, FieldViolation> {
        Ok(SessionRef {
            id: SessionId::parse(id).in_field("session_id")?,
            user_id: self.user(user)?,
        })
    }
}
