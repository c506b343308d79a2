use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture, service::Routes};
use tower::Service;

use super::{
    checkpoint_service::CheckpointService, conversation_memory::ConversationMemory,
    session_service::SessionService, store_service::StoreService,
};
use crate::proto::{
    checkpoint_service_server::{self, CheckpointServiceServer},
    conversation_memory_server::{self, ConversationMemoryServer},
    session_service_server::{self, SessionServiceServer},
    store_service_server::{self, StoreServiceServer},
};

/// All services. Those of this program are called directly: a router allocates and copies for
/// each of its layers, which is a part of the cost of a short call.
#[derive(Clone, Debug)]
pub struct Api {
    conversations: ConversationMemoryServer<ConversationMemory>,
    sessions: SessionServiceServer<SessionService>,
    items: StoreServiceServer<StoreService>,
    checkpoints: CheckpointServiceServer<CheckpointService>,
    /// Health and reflection. They answer requests for unknown services, too.
    others: Routes,
}

impl Api {
    pub(super) fn new(
        conversations: ConversationMemoryServer<ConversationMemory>,
        sessions: SessionServiceServer<SessionService>,
        items: StoreServiceServer<StoreService>,
        checkpoints: CheckpointServiceServer<CheckpointService>,
        others: Routes,
    ) -> Self {
        Self {
            conversations,
            sessions,
            items,
            checkpoints,
            others: others.prepare(),
        }
    }
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Either<BoxFuture<Response<Body>, Infallible>, <Routes as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if is_of(conversation_memory_server::SERVICE_NAME, path) {
            Either::Left(self.conversations.call(request))
        } else if is_of(session_service_server::SERVICE_NAME, path) {
            Either::Left(self.sessions.call(request))
        } else if is_of(store_service_server::SERVICE_NAME, path) {
            Either::Left(self.items.call(request))
        } else if is_of(checkpoint_service_server::SERVICE_NAME, path) {
            Either::Left(self.checkpoints.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

/// Whether a path is that of a method of `service`.
fn is_of(service: &str, path: &str) -> bool {
    let method = path
        .strip_prefix('/')
        .and_then(|path| path.strip_prefix(service));
    method.is_some_and(|method| method.starts_with('/'))
}
