use tonic::{Request, Response, Status, async_trait};

use super::{
    convert::{self, OwnerScope},
    field::InField,
    page_token,
    use_case::use_case,
};
use crate::{
    domain::{DeptId, Session},
    memory::{CreateSession, Memory},
    proto::{self, session_service_server},
    sessions::SessionQuery,
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
        let request = request.into_inner();
        let of = ["sessions", &request.user_id];
        let query = SessionQuery {
            user_id: convert::user_id(&request.user_id)?,
            after: page_token::decode(&request.page_token, &of).in_field("page_token")?,
            limit: convert::page_size(request.page_size, 20, 100)?,
        };
        let page = use_case("list_sessions", self.memory.list_sessions(&query)).await?;
        let next = page.next.map(|key| page_token::encode(key, &of));
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: page.sessions.into_iter().map(convert::session).collect(),
            next_page_token: next.unwrap_or_default(),
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
