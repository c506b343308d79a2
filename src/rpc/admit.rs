//! Who may call, in front of everything but health.
//!
//! Two layers, because a refusal is to be seen like any other answer: [`Identify`] is the
//! outermost one, judges the caller, notes the verdict on the request and takes the
//! credential off it; [`Admit`], behind what observes calls and makes REST gRPC, acts on
//! the verdict. A request without one is refused. Neither reads the body.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::status;
use crate::access::{Access, AccessDenied, Caller, Peer};

/// Who calls, or why it may not.
#[derive(Clone, Debug)]
struct Verdict(Result<Caller, AccessDenied>);

/// Who calls, where that is known.
pub(super) fn caller<B>(request: &Request<B>) -> Option<&Caller> {
    let verdict = request.extensions().get::<Verdict>()?;
    verdict.0.as_ref().ok()
}

/// Refuses callers who may not call.
pub(super) fn check<B>(request: &Request<B>) -> Result<&Caller, Status> {
    match request.extensions().get::<Verdict>() {
        Some(Verdict(Ok(caller))) => Ok(caller),
        Some(Verdict(Err(refusal))) => Err(status::refused(*refusal)),
        None => Err(status::internal()),
    }
}

/// Judges callers.
#[derive(Clone, Debug)]
pub struct Identify(Arc<Access>);

impl Identify {
    /// Judges by these rules.
    pub fn new(access: Arc<Access>) -> Self {
        Self(access)
    }

    /// Notes the verdict on a request, and takes the credential off it.
    pub(super) fn mark<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(peer) = request.extensions().get::<Peer>() {
            let verdict = self.0.judge(peer, request.headers());
            request.extensions_mut().insert(Verdict(verdict));
        }
        request.headers_mut().remove(AUTHORIZATION);
        request
    }
}

/// The layer that acts on the verdict, and keeps each caller to its rate.
#[derive(Clone, Debug)]
pub struct Admit(Arc<Access>);

impl Admit {
    /// Counts calls by these rules.
    pub fn new(access: Arc<Access>) -> Self {
        Self(access)
    }
}

impl<S> Layer<S> for Admit {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admitted {
            inner,
            access: Arc::clone(&self.0),
        }
    }
}

/// A service that not everybody may call.
#[derive(Clone, Debug)]
pub struct Admitted<S> {
    inner: S,
    access: Arc<Access>,
}

impl<S> Service<Request<Body>> for Admitted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with("/grpc.health.") {
            return Box::pin(self.inner.call(request));
        }
        let admitted =
            check(&request).and_then(|caller| self.access.count(caller).map_err(status::too_often));
        match admitted {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}
