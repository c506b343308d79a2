use super::{Error, Memory, Resource};
use crate::domain::{
    ConversationId, ConversationRef, DeptId, NewSession, Session, SessionId, SessionRef, UserId,
};

/// A session to be started.
#[derive(Clone, Debug)]
pub struct CreateSession {
    /// For whom.
    pub user_id: UserId,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// The conversation to put it on.
    pub conversation_id: Option<ConversationId>,
}

impl Memory {
    /// Starts a session.
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
        let session = live(id, self.0.sessions.start(&new).await?)?;
        // Noted only now: a session that never began must not take the place
        // of a live one.
        if let Some(conversation) = conversation {
            self.attach_session(conversation, id).await?;
        }
        Ok(session)
    }

    /// Reads a session without renewing it.
    pub async fn get_session(&self, session: SessionRef) -> Result<Session, Error> {
        let SessionRef { id, user_id } = session;
        let found = self.0.sessions.get(id).await?;
        let is_theirs = |found: &Session| user_id.is_none_or(|user| user == found.user_id);
        live(id, found.filter(is_theirs))
    }

    /// Gives a session its whole TTL again.
    pub async fn extend_session(&self, session: SessionRef) -> Result<Session, Error> {
        let SessionRef { id, user_id } = session;
        let touched = self.0.sessions.touch(id, user_id.as_ref()).await?;
        live(id, touched)
    }

    /// Ends a session.
    pub async fn end_session(&self, session: SessionRef) -> Result<(), Error> {
        let id = session.id;
        if session.user_id.is_some() {
            // Nothing comes between: a session's user never changes.
            self.get_session(session).await?;
        }
        live(id, self.0.sessions.end(id).await?.then_some(()))
    }

    /// A user's live sessions, the one used last first.
    pub async fn list_sessions(&self, user: &UserId) -> Result<Vec<Session>, Error> {
        Ok(self.0.sessions.list(user).await?)
    }

    /// Notes in the store which conversation a session is on, so that it can be
    /// restored when it has expired.
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
                .map_err(|error| Error::of_store(error, conversation.id))
        })
        .await
    }
}

pub(super) fn live<T>(id: SessionId, found: Option<T>) -> Result<T, Error> {
    found.ok_or(Error::NotFound(Resource::Session(id)))
}
