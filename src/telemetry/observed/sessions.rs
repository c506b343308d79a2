use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    domain::{NewSession, Session, SessionId, UserId},
    sessions::{Sessions, SessionsUnavailable},
    telemetry::call,
};

/// Sessions that say which conversation they are on.
#[derive(Debug)]
pub struct ObservedSessions(Arc<dyn Sessions>);

impl ObservedSessions {
    /// Observes these.
    pub fn new(sessions: Arc<dyn Sessions>) -> Self {
        Self(sessions)
    }
}

#[async_trait]
impl Sessions for ObservedSessions {
    async fn start(&self, new: &NewSession) -> Result<Option<Session>, SessionsUnavailable> {
        call::is_perhaps_about(new.conversation_id);
        self.0.start(new).await
    }

    async fn get(&self, id: SessionId) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(noted(self.0.get(id).await?))
    }

    async fn touch(
        &self,
        id: SessionId,
        user: Option<&UserId>,
    ) -> Result<Option<Session>, SessionsUnavailable> {
        Ok(noted(self.0.touch(id, user).await?))
    }

    async fn end(&self, id: SessionId) -> Result<bool, SessionsUnavailable> {
        self.0.end(id).await
    }

    async fn list(&self, user: &UserId) -> Result<Vec<Session>, SessionsUnavailable> {
        self.0.list(user).await
    }
}

/// A call in a session is about the session's conversation, unless it names one.
fn noted(session: Option<Session>) -> Option<Session> {
    call::is_perhaps_about(session.as_ref().and_then(|session| session.conversation_id));
    session
}
