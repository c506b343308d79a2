use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    call,
    domain::{NewSession, Session, SessionId, UserId},
    sessions::{SessionPage, SessionQuery, Sessions, SessionsUnavailable},
};

/// Decorator of the session tier that sets the conversation of the current call.
#[derive(Debug)]
pub struct ObservedSessions(Arc<dyn Sessions>);

impl ObservedSessions {
    /// Decorates a session tier.
    pub fn new(sessions: Arc<dyn Sessions>) -> Self {
        Self(sessions)
    }
}

#[async_trait]
impl Sessions for ObservedSessions {
    async fn start(&self, new: &NewSession) -> Result<Session, SessionsUnavailable> {
        call::set_conversation_if_unset(new.conversation_id);
        self.0.start(new).await
    }

    async fn get(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(record_conversation(self.0.get(id, user).await?))
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(record_conversation(self.0.touch(id, user).await?))
    }

    async fn end(&self, id: SessionId, user: Option<&UserId>) -> Result<bool, SessionsUnavailable> {
        self.0.end(id, user).await
    }

    async fn list(&self, query: &SessionQuery) -> Result<SessionPage, SessionsUnavailable> {
        self.0.list(query).await
    }
}

/// Sets the session's conversation as that of the call, unless the request contains
/// one.
fn record_conversation(session: Option<Session>) -> Option<Session> {
    call::set_conversation_if_unset(session.as_ref().and_then(|session| session.conversation_id));
    session
}
