use super::{Error, Memory, Resource};
use crate::{
    domain::{
        ConversationId, ConversationRef, DeptId, NewSession, Session, SessionId, SessionRef, UserId,
    },
    sessions::{SessionPage, SessionQuery},
};

/// Session to be started.
#[derive(Clone, Debug)]
pub struct CreateSession {
    /// User of the session.
    pub user_id: UserId,
    /// Department of the user.
    pub dept_id: Option<DeptId>,
    /// Current conversation of the session; `None` before the first turn.
    pub conversation_id: Option<ConversationId>,
}

impl Memory {
    /// Starts a session.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the conversation does not exist; with
    /// [`Error::Unavailable`] if the session tier, or the store where it is needed, cannot be
    /// reached.
    pub async fn create_session(&self, request: CreateSession) -> Result<Session, Error> {
        let id = SessionId::from_uuid(self.new_id());
        let conversation = request.conversation_id.map(|id| ConversationRef {
            id,
            user_id: Some(request.user_id.clone()),
        });
        if let Some(conversation) = &conversation {
            self.get_conversation(conversation).await?;
        }
        let new = NewSession {
            id,
            user_id: request.user_id,
            dept_id: request.dept_id,
            conversation_id: request.conversation_id,
        };
        let session = self.0.sessions.start(&new).await?;
        // Recorded only now: a session that did not start must not replace a live one.
        if let Some(conversation) = conversation {
            self.attach_session(conversation, id).await?;
        }
        Ok(session)
    }

    /// Reads a session without renewing it.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the session is not live or belongs to another user; with
    /// [`Error::Unavailable`] if the session tier cannot be reached.
    pub async fn get_session(&self, session: SessionRef) -> Result<Session, Error> {
        let SessionRef { id, user_id } = session;
        let found = self.0.sessions.get(id, user_id.as_ref()).await?;
        require_session(id, found)
    }

    /// Resets the TTL of a session.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::get_session`] does.
    pub async fn extend_session(&self, session: SessionRef) -> Result<Session, Error> {
        let SessionRef { id, user_id } = session;
        let touched = self.0.sessions.touch(id, user_id.as_ref()).await?;
        require_session(id, touched)
    }

    /// Ends a session.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::get_session`] does.
    pub async fn end_session(&self, session: SessionRef) -> Result<(), Error> {
        let SessionRef { id, user_id } = session;
        let has_ended = self.0.sessions.end(id, user_id.as_ref()).await?;
        require_session(id, has_ended.then_some(()))
    }

    /// Lists a page of a user's live sessions, the most recently used first.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Unavailable`] if the session tier cannot be reached.
    pub async fn list_sessions(&self, query: &SessionQuery) -> Result<SessionPage, Error> {
        Ok(self.0.sessions.list(query).await?)
    }

    /// Records the current conversation of a session in the store, so that the session can be
    /// restored after it has expired.
    pub(super) async fn attach_session(
        &self,
        conversation: ConversationRef,
        session: SessionId,
    ) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            memory
                .0
                .store
                .attach_session(&conversation, session)
                .await
                .map(drop)
                .map_err(|error| Error::from_store(error, conversation.id))
        })
        .await
    }
}

/// Converts a session that is not live into [`Error::NotFound`].
fn require_session<T>(id: SessionId, found: Option<T>) -> Result<T, Error> {
    found.ok_or(Error::NotFound(Resource::Session(id)))
}
