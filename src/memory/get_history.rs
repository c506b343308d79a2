use super::{
    Error, Memory, Source,
    newest::{NewestMessages, NewestQuery},
};
use crate::domain::{ConversationRef, Message, SessionId, UserId};

/// Read of a conversation's newest messages.
#[derive(Clone, Debug)]
pub struct GetHistory {
    /// Conversation to read.
    pub conversation: ConversationRef,
    /// Upper bound on the messages returned; `None` uses the default.
    pub limit: Option<u32>,
    /// Number up to which the history must include all messages.
    pub min_seq: i64,
    /// Whether the durable store is read even if the recent window has the messages.
    pub strong: bool,
    /// Session to renew.
    pub session_id: Option<SessionId>,
    /// Whether messages include their contexts.
    pub contexts: bool,
}

/// Newest messages of a conversation.
#[derive(Debug)]
pub struct History {
    /// Messages, oldest first.
    pub messages: Vec<Message>,
    /// Highest number that the conversation has assigned to a message.
    pub last_seq: i64,
    /// Origin of the messages.
    pub source: Source,
}

impl Memory {
    /// Reads the newest messages of a conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with
    /// [`Error::MinSeqNotReached`] if it ends before `min_seq`; with [`Error::Unavailable`] if the
    /// store is needed and cannot be reached.
    pub async fn get_history(&self, request: GetHistory) -> Result<History, Error> {
        let query = NewestQuery {
            limit: request.limit.unwrap_or(self.0.default_limit),
            min_seq: request.min_seq,
            strong: request.strong,
            contexts: request.contexts,
        };
        // A claimed owner must also own the session, so both operations can run concurrently.
        let claimed = request.conversation.user_id.as_ref();
        let (newest, ()) = tokio::join!(self.newest(&request.conversation, query), async {
            if let Some(claimed) = claimed {
                self.renew_session(request.session_id, claimed).await;
            }
        });
        let NewestMessages {
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

    /// Renews the session of a call if it is live and belongs to `owner`. The call does
    /// not depend on it: a failure is only logged.
    pub(super) async fn renew_session(&self, session: Option<SessionId>, owner: &UserId) {
        if let Some(id) = session
            && let Err(error) = self.0.sessions.touch(id, Some(owner)).await
        {
            tracing::debug!(session.id = %id, error = %error, "session not renewed");
        }
    }
}
