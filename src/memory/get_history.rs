use super::{
    Error, Memory, Source,
    newest::{Newest, Want},
};
use crate::domain::{ConversationRef, Message, SessionId, UserId};

/// A read of the newest messages.
#[derive(Clone, Debug)]
pub struct GetHistory {
    /// Of which conversation.
    pub conversation: ConversationRef,
    /// How many; None for the default.
    pub limit: Option<u32>,
    /// The answer includes everything up to here.
    pub min_seq: i64,
    /// Read the durable store, whatever the window has.
    pub strong: bool,
    /// The session to renew.
    pub session_id: Option<SessionId>,
    /// Whether messages come with their contexts.
    pub contexts: bool,
}

/// The newest messages.
#[derive(Debug)]
pub struct History {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// The conversation's last number.
    pub last_seq: i64,
    /// Where they came from.
    pub source: Source,
}

impl Memory {
    /// Reads the newest messages of a conversation.
    pub async fn get_history(&self, request: GetHistory) -> Result<History, Error> {
        let want = Want {
            limit: request.limit.unwrap_or(self.0.default_limit),
            min_seq: request.min_seq,
            strong: request.strong,
            contexts: request.contexts,
        };
        // A claim says whose the session is to be, so that both go at once.
        let claimed = request.conversation.user_id.as_ref();
        let (newest, ()) = tokio::join!(self.newest(&request.conversation, want), async {
            if let Some(claimed) = claimed {
                self.renew_session(request.session_id, claimed).await;
            }
        });
        let Newest {
            owner,
            last_seq,
            messages,
            source,
            ..
        } = newest?;
        if claimed.is_none() {
            self.renew_session(request.session_id, &owner).await;
        }
        Ok(History {
            messages,
            last_seq,
            source,
        })
    }

    /// Renews the session that a call was made in, if it is live and the
    /// conversation's owner's. The call itself does not depend on it.
    pub(super) async fn renew_session(&self, session: Option<SessionId>, owner: &UserId) {
        if let Some(id) = session
            && let Err(error) = self.0.sessions.touch(id, Some(owner)).await
        {
            tracing::debug!(session.id = %id, error = %error, "session not renewed");
        }
    }
}
