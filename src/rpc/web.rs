//! The layer that rejects requests that pages in a browser may have sent, before anything else
//! is done for them: those for a host that is not allowed, with 421, and those by which a page of
//! another origin would change something, with 403. By CORS, pages of
//! trusted origins may read responses.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll, ready as try_ready},
    time::Duration,
};

use futures_util::future::Either;
use grpc_json_transcoding::render_error;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_DISPOSITION, CONTENT_TYPE, ORIGIN},
};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tower_http::cors::{self, AllowOrigin, Cors, CorsLayer};

use super::status;
use crate::{
    access::{CrossSitePolicy, HostPolicy, Peer, WebOrigin},
    log_throttle::LogThrottle,
    rejections::Limit,
};

static REJECTION_LOG: LogThrottle = LogThrottle::new();

/// Time for which a browser may remember which requests a page may send.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_mins(10);

/// Methods of the API over REST.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// Headers that a page may set.
const REQUEST_HEADERS: [HeaderName; 7] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
    HeaderName::from_static("langsmith-trace"),
];

/// The layer. Clones share its rules.
#[derive(Clone, Debug)]
pub struct WebGuard {
    policies: Arc<WebPolicies>,
    cors: Option<CorsLayer>,
}

#[derive(Debug)]
struct WebPolicies {
    hosts: HostPolicy,
    cross_site: CrossSitePolicy,
}

impl WebGuard {
    /// Creates the layer. Pages of the `trusted` origins may call and read responses.
    pub fn new(hosts: HostPolicy, trusted: Vec<WebOrigin>) -> Self {
        let cors = (!trusted.is_empty()).then(|| cors(&trusted));
        let policies = WebPolicies {
            hosts,
            cross_site: CrossSitePolicy::new(trusted),
        };
        Self {
            policies: Arc::new(policies),
            cors,
        }
    }
}

/// Creates the layer that answers preflight requests and marks the responses that a page of a
/// trusted origin may read. Browsers never add credentials of their own to these requests.
fn cors(trusted: &[WebOrigin]) -> CorsLayer {
    let origins = trusted.iter().map(|origin| origin.as_header().clone());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods(METHODS)
        .allow_headers(REQUEST_HEADERS)
        .expose_headers([CONTENT_DISPOSITION])
        .max_age(PREFLIGHT_MAX_AGE)
}

impl<S: Clone> Layer<S> for WebGuard {
    type Service = WebGuarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WebGuarded {
            cors: self.cors.as_ref().map(|cors| cors.layer(inner.clone())),
            inner,
            policies: Arc::clone(&self.policies),
        }
    }
}

/// A service behind a [`WebGuard`].
#[derive(Clone, Debug)]
pub struct WebGuarded<S> {
    inner: S,
    /// The same service for the requests of pages.
    cors: Option<Cors<S>>,
    policies: Arc<WebPolicies>,
}

/// Response of the layer itself, of the service for a request of a page, or of the service.
type WebFuture<F> =
    Either<Ready<Result<Response<Body>, Infallible>>, Either<cors::ResponseFuture<F>, F>>;

impl<S> Service<Request<Body>> for WebGuarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = WebFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if let Some(cors) = &mut self.cors {
            try_ready!(cors.poll_ready(cx))?;
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(rejection) = self.policies.check(&request) {
            return Either::Left(ready(Ok(rejection)));
        }
        Either::Right(match &mut self.cors {
            Some(cors) if request.headers().contains_key(ORIGIN) => {
                Either::Left(cors.call(request))
            }
            _ => Either::Right(self.inner.call(request)),
        })
    }
}

impl WebPolicies {
    /// Returns the response to a request that is rejected.
    fn check(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let (uri, headers) = (request.uri(), request.headers());
        let peer = request.extensions().get::<Peer>();
        if let Err(refused) = self.hosts.check(peer, uri, headers) {
            Limit::Hosts.count_rejection();
            let http = StatusCode::MISDIRECTED_REQUEST;
            return Some(reject(headers, status::host_not_allowed(&refused), http));
        }
        if let Err(refused) = self.cross_site.check(request.method(), uri, headers) {
            Limit::Origins.count_rejection();
            let http = StatusCode::FORBIDDEN;
            return Some(reject(headers, status::origin_not_allowed(&refused), http));
        }
        None
    }
}

fn reject(headers: &HeaderMap, status: Status, http: StatusCode) -> Response<Body> {
    let cause = status.message();
    if let Some(suppressed) = REJECTION_LOG.admit(cause) {
        let suppressed = suppressed.count();
        tracing::warn!(cause, suppressed, "a request was rejected");
    }
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        // A gRPC client prefers this status to the one that it would derive from that of HTTP.
        let mut response = status.into_http();
        *response.status_mut() = http;
        return response;
    }
    render_error(&status, Some(http))
}
