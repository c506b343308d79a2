//! REST: HTTP with JSON, in front of the gRPC services.
//!
//! A REST call is made a gRPC call before anything else sees it, and its answer is
//! made JSON after everything else has: it has the span, the metrics, the limits and
//! the deadline of the RPC that its route names, because it is that RPC. Which
//! routes there are is said by the `google.api.http` annotations of the contract,
//! and nowhere else.

#![expect(
    clippy::disallowed_methods,
    reason = "REST creates the statuses of calls that never reach the services"
)]

mod contract;
mod download;
mod error;
mod frames;
mod json;
mod openapi;
mod reply;
mod request;
mod template;
mod upload;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

pub use self::contract::Unfit;
use self::contract::{Contract, Found, Route};
use super::admit;

/// Where the description of the routes is.
const OPENAPI: &str = "/openapi.json";

/// The layer. Only [`super::admit::Authenticator`] stands in front of it.
#[derive(Clone, Debug)]
pub struct Rest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    contract: Contract,
    /// None where callers are not told of the routes.
    openapi: Option<Bytes>,
    max_request_bytes: usize,
}

impl Rest {
    /// Reads the contract. A request's body has `max_request_bytes` at most, as JSON
    /// and as the protobuf that is made of it. The routes are described in a document if
    /// `is_described`.
    pub fn new(max_request_bytes: usize, is_described: bool) -> Result<Self, Unfit> {
        let contract = Contract::load()?;
        let openapi = is_described.then(|| openapi::document(&contract).into());
        Ok(Self(Arc::new(Shared {
            contract,
            openapi,
            max_request_bytes,
        })))
    }
}

impl<S> Layer<S> for Rest {
    type Service = Restful<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Restful {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

/// A service that is spoken to over REST as well.
#[derive(Clone, Debug)]
pub struct Restful<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Restful<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.shared.is_grpc(&request) {
            return Box::pin(self.inner.call(request));
        }
        let mut inner = self.inner.clone();
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(shared.answer(&mut inner, request).await) })
    }
}

impl Shared {
    fn is_grpc(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let content_type = request.headers().get(header::CONTENT_TYPE);
        content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
            || path.starts_with("/grpc.")
            || self.contract.has_service(path)
    }

    async fn answer<S>(&self, inner: &mut S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let uri = request.uri().clone();
        let admitted = admit::check(&request).map(drop);
        let (route, captures) = match self.route(&request, uri.path()) {
            Ok(found) => found,
            // What goes no further is refused here to those who may not call.
            Err(answer) => {
                return match admitted {
                    Ok(()) => *answer,
                    Err(status) => error::render(&status, None),
                };
            }
        };
        let (call, sent) = request::into_call(route, &captures, request, self.max_request_bytes);
        match inner.call(call).await {
            Ok(response) => {
                let response = reply::render(&route.method, response).await;
                match sent {
                    // Not of those who may not call.
                    Some(sent) if response.status().is_client_error() && admitted.is_ok() => {
                        response.map(|answer| sent.hear_out(answer))
                    }
                    _ => response,
                }
            }
            Err(never) => match never {},
        }
    }

    /// The call that a request is, and what its path says of the variables; or the answer
    /// to one that is none.
    fn route<'p>(
        &self,
        request: &Request<Body>,
        path: &'p str,
    ) -> Result<(&Route, Vec<&'p str>), Box<Response<Body>>> {
        // What answers a HEAD is GET; the transport leaves the body out.
        let method = match request.method() {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let (route, captures) = match self.contract.find(method, path) {
            Found::Route(route, captures) => (route, captures),
            Found::Nothing => {
                let document = self.openapi.as_ref().filter(|_| path == OPENAPI);
                let answer = document.map(|document| describe(method, document));
                return Err(Box::new(answer.unwrap_or_else(error::no_such_path)));
            }
            Found::OtherMethods(allowed) => return Err(Box::new(error::other_methods(&allowed))),
        };
        match request::takes(route, request) {
            Ok(()) => Ok((route, captures)),
            Err(status) => {
                let unfit = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                Err(Box::new(error::render(&status, unfit)))
            }
        }
    }
}

fn describe(method: &Method, document: &Bytes) -> Response<Body> {
    if method != Method::GET {
        return error::other_methods("GET, HEAD");
    }
    json_response(document.clone())
}

/// What is answered is the caller's alone, and is what it says it is.
const HEADERS: [(header::HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
];

/// A body that did not come to its end.
fn cut_off() -> Status {
    Status::new(Code::InvalidArgument, "the body ended too early")
}

fn json_response(body: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(body.into());
    response("application/json".parse().ok(), Body::new(body))
}

fn response(content_type: Option<HeaderValue>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    let binary = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(binary));
    response
}
