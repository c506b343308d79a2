use super::{
    Error, Memory, Source,
    history::{History, HistoryQuery},
    newest::{NewestMessages, NewestQuery},
};
use crate::domain::{ConversationRef, SessionId, UserId};

/// Read of a conversation's newest messages.
#[derive(Clone, Debug)]
pub struct GetHistory {
    /// Conversation to read.
    pub conversation: ConversationRef,
    /// Limits on the history.
    pub limits: HistoryLimits,
    /// Number up to which the history must include all messages.
    pub min_seq: i64,
    /// Whether the durable store is read even if the recent window has the messages.
    pub strong: bool,
    /// Session to renew.
    pub session_id: Option<SessionId>,
    /// Whether messages include their contexts.
    pub contexts: bool,
}

/// Limits on a history as a caller set them.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryLimits {
    /// Target number of messages; `None` uses the default.
    pub limit: Option<u32>,
    /// Upper bound on the tokens of all messages; `None` means no upper bound.
    pub max_tokens: Option<u32>,
    /// Whether messages before the first message of a user are omitted.
    pub start_on_user: bool,
}

/// Newest messages of a conversation.
#[derive(Debug)]
pub struct HistoryOutcome {
    /// Messages that the limits allow.
    pub history: History,
    /// Whether the conversation should be compacted.
    pub compaction_due: bool,
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
    pub async fn get_history(&self, request: GetHistory) -> Result<HistoryOutcome, Error> {
        let query = NewestQuery {
            history: self.history_query(request.limits),
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
            mut history,
            uncompacted_tokens,
            source,
            ..
        } = newest?;
        if claimed.is_none() {
            self.renew_session(request.session_id, &owner).await;
        }
        self.attach_history_blobs(request.conversation.id, &mut history.messages)
            .await;
        Ok(HistoryOutcome {
            history,
            compaction_due: self.is_compaction_due(uncompacted_tokens),
            last_seq,
            source,
        })
    }

    /// Completes the limits of a caller with the defaults.
    pub(super) fn history_query(&self, limits: HistoryLimits) -> HistoryQuery {
        HistoryQuery {
            limit: limits.limit.unwrap_or(self.0.default_limit),
            max_tokens: limits.max_tokens,
            start_on_user: limits.start_on_user,
        }
    }

    /// Whether a conversation has so many tokens without a summary that it should be compacted.
    pub(super) fn is_compaction_due(&self, uncompacted_tokens: i64) -> bool {
        let limit = self.0.compaction_tokens;
        limit > 0 && u64::try_from(uncompacted_tokens).is_ok_and(|tokens| tokens > limit)
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
