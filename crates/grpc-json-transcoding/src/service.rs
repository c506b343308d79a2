use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use prost_reflect::DescriptorPool;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::{
    Config, InvalidHttpRule, OPENAPI_PATH, error, openapi, request, response,
    rule::{Match, Route, Routes},
};

/// A layer that transcodes HTTP with JSON to gRPC. A clone shares its routes.
#[derive(Clone, Debug)]
pub struct TranscodingLayer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    routes: Routes,
    /// The OpenAPI document. It is rendered when it is first requested: few servers are asked for
    /// it, and the memory that rendering takes is not returned to the system.
    openapi: OnceLock<Bytes>,
    config: Config,
}

impl TranscodingLayer {
    /// Reads the HTTP rules of all services in `pool`.
    ///
    /// # Errors
    /// Fails if a rule is invalid or uses a feature that this crate does not support.
    pub fn new(pool: &DescriptorPool, config: Config) -> Result<Self, InvalidHttpRule> {
        let routes = Routes::of_services(pool, &config)?;
        Ok(Self(Arc::new(Shared {
            routes,
            openapi: OnceLock::new(),
            config,
        })))
    }
}

impl<S> Layer<S> for TranscodingLayer {
    type Service = Transcoding<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Transcoding {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

/// A gRPC service that is also served over HTTP with JSON.
#[derive(Clone, Debug)]
pub struct Transcoding<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Transcoding<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    /// The future of a gRPC call, which is the one of the inner service without an allocation,
    /// or the boxed future of a transcoded call.
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_grpc(&request) {
            return Either::Left(self.inner.call(request));
        }
        // Call the service that has been polled to readiness, not its clone.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let shared = Arc::clone(&self.shared);
        Either::Right(async move { Ok(shared.transcode(&mut inner, request).await) }.boxed())
    }
}

/// Whether a request is a gRPC call. The content type is required, because a page of another site
/// cannot make a browser send a request of this type without asking the server.
fn is_grpc(request: &Request<Body>) -> bool {
    let mut content_types = request.headers().get_all(header::CONTENT_TYPE).iter();
    let content_type = content_types.next().map(HeaderValue::as_bytes);
    request.version() >= Version::HTTP_2
        && request.method() == Method::POST
        && content_type.is_some_and(is_grpc_type)
        && content_types.next().is_none()
}

/// Whether a content type is `application/grpc`, with or without the name of a message format.
fn is_grpc_type(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some((start, rest)) = content_type.split_at_checked(TYPE.len()) else {
        return false;
    };
    start.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

impl Shared {
    async fn transcode<S>(&self, inner: &mut S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let uri = request.uri().clone();
        let authorized = (self.config.authorize)(&request);
        let (route, captures) = match self.route(&request, uri.path()) {
            Ok(found) => found,
            Err(response) => {
                return match authorized {
                    Ok(()) => *response,
                    Err(status) => error::render(&status, None),
                };
            }
        };
        let (call, upload) = request::into_call(route, &captures, request, self.config.limits);
        let response = match inner.call(call).await {
            Ok(response) => response::render(route, response).await,
            Err(never) => match never {},
        };
        match upload {
            // The body is read only if the caller is authorized.
            Some(upload) if response.status().is_client_error() && authorized.is_ok() => {
                response.map(|body| upload.drain_after(body))
            }
            _ => response,
        }
    }

    /// Finds the route of a request and the values that its path has for the variables of the
    /// route's template. The error is the response to a request that does not become a call.
    fn route<'p>(
        &self,
        request: &Request<Body>,
        path: &'p str,
    ) -> Result<(&Route, Vec<&'p str>), Box<Response<Body>>> {
        if path.starts_with("/grpc.") || self.routes.has_service(path) {
            return Err(Box::new(error::not_grpc(request)));
        }
        // The transport leaves out the body of the response to a HEAD request.
        let method = match request.method() {
            &Method::HEAD => &Method::GET,
            method => method,
        };
        let (route, captures) = match self.routes.find(method, path) {
            Match::Route(route, captures) => (route, captures),
            Match::None => {
                let info = self.config.openapi.as_ref();
                let response = info.filter(|_| path == OPENAPI_PATH).map(|info| {
                    let render = || openapi::document(&self.routes, info).into();
                    serve_document(method, self.openapi.get_or_init(render))
                });
                return Err(Box::new(response.unwrap_or_else(error::unknown_path)));
            }
            Match::OtherMethods(allowed) => {
                return Err(Box::new(error::method_not_allowed(&allowed)));
            }
        };
        match request::check_content_type(route, request) {
            Ok(()) => Ok((route, captures)),
            Err(status) => {
                let http = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                Err(Box::new(error::render(&status, http)))
            }
        }
    }
}

fn serve_document(method: &Method, document: &Bytes) -> Response<Body> {
    if method != Method::GET {
        return error::method_not_allowed("GET, HEAD");
    }
    response::json(document.clone())
}

/// Status of a request whose body failed with `error`: it ended before its announced end, unless the
/// server has rejected it.
pub(crate) fn unreadable_body(error: Status) -> Status {
    if error.code() == Code::ResourceExhausted {
        return error;
    }
    Status::invalid_argument("the request body is incomplete")
}

/// Status of an internal failure, which discloses nothing to the caller.
pub(crate) fn internal() -> Status {
    Status::internal("internal error")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_call(method: Method, version: Version, content_types: &[&str]) -> bool {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.version_mut() = version;
        for value in content_types {
            let headers = request.headers_mut();
            headers.append(header::CONTENT_TYPE, value.parse().unwrap());
        }
        is_grpc(&request)
    }

    #[test]
    fn only_posts_over_http2_of_the_type_of_grpc_are_calls() {
        for (content_types, expected) in [
            (&["application/grpc"][..], true),
            (&["application/grpc+proto"], true),
            (&["Application/gRPC+Proto"], true),
            (&["application/grpc;charset=utf-8"], true),
            (&["application/grpc ; x=y"], true),
            (&[], false),
            (&[""], false),
            (&["application/grp"], false),
            (&["application/grpcfoo"], false),
            (&["application/grpc-web"], false),
            (&["application/grpc-web+proto"], false),
            (&["application/grpc-web-text"], false),
            (&["application/grpc/x"], false),
            (&[" application/grpc"], false),
            (&["application/json"], false),
            (&["text/plain"], false),
            (&["text/plain; application/grpc"], false),
            (&["text/plain", "application/grpc"], false),
            (&["application/grpc", "text/plain"], false),
            (&["application/grpc", "application/grpc"], false),
        ] {
            let is = |method, version| is_call(method, version, content_types);
            assert_eq!(
                is(Method::POST, Version::HTTP_2),
                expected,
                "{content_types:?}"
            );
            for method in [Method::GET, Method::PUT, Method::OPTIONS] {
                assert!(!is(method, Version::HTTP_2), "{content_types:?}");
            }
            for version in [Version::HTTP_10, Version::HTTP_11] {
                assert!(!is(Method::POST, version), "{content_types:?}");
            }
        }
    }
}
