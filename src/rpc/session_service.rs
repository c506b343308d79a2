use tonic::{Request, Response, Status, async_trait};

use super::{
    convert::{self, OwnerScope},
    use_case::use_case,
};
use crate::{
    domain::{DeptId, Session},
    memory::{CreateSession, Memory},
    proto::{self, session_service_server},
};

/// Implementation of the service `SessionService`.
#[derive(Clone, Debug)]
pub(crate) struct SessionService {
    pub(crate) memory: Memory,
    pub(crate) owner_scope: OwnerScope,
}

#[async_trait]
impl session_service_server::SessionService for SessionService {
    async fn create_session(
        &self,
        request: Request<proto::CreateSessionRequest>,
    ) -> Result<Response<proto::CreateSessionResponse>, Status> {
        let request = request.into_inner();
        let create = CreateSession {
            conversation_id: convert::optional_conversation_id(&request.conversation_id)?,
            user_id: convert::user_id(&request.user_id)?,
            dept_id: convert::optional(&request.dept_id, "dept_id", DeptId::parse)?,
        };
        let session =
            rendered(use_case("create_session", self.memory.create_session(create)).await?);
        Ok(Response::new(proto::CreateSessionResponse { session }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        let request = request.into_inner();
        let session = self
            .owner_scope
            .session(&request.session_id, &request.user_id)?;
        let session = rendered(use_case("get_session", self.memory.get_session(session)).await?);
        Ok(Response::new(proto::GetSessionResponse { session }))
    }

    async fn extend_session(
        &self,
        request: Request<proto::ExtendSessionRequest>,
    ) -> Result<Response<proto::ExtendSessionResponse>, Status> {
        let request = request.into_inner();
        let session = self
            .owner_scope
            .session(&request.session_id, &request.user_id)?;
        let session =
            rendered(use_case("extend_session", self.memory.extend_session(session)).await?);
        Ok(Response::new(proto::ExtendSessionResponse { session }))
    }

    async fn end_session(
        &self,
        request: Request<proto::EndSessionRequest>,
    ) -> Result<Response<proto::EndSessionResponse>, Status> {
        let request = request.into_inner();
        let session = self
            .owner_scope
            .session(&request.session_id, &request.user_id)?;
        use_case("end_session", self.memory.end_session(session)).await?;
        Ok(Response::new(proto::EndSessionResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let user = convert::user_id(&request.into_inner().user_id)?;
        let sessions = use_case("list_sessions", self.memory.list_sessions(&user)).await?;
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: sessions.into_iter().map(convert::session).collect(),
        }))
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the field of every reply is optional"
)]
fn rendered(session: Session) -> Option<proto::Session> {
    Some(convert::session(session))
}
