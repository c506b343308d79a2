//! The layer that records every call: its span, its duration and outcome, and the scope by which all
//! work for the call finds its data.
//!
//! It runs before the guard, so that rejected calls are recorded, too. Health checks and
//! reflection (`/grpc.…`) are not recorded.

mod body;
mod call_outcome;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use opentelemetry::metrics::Histogram;
use tonic::body::Body;
use tower::{Layer, Service};

use self::{body::ObservedBody, call_outcome::CallOutcome};
use super::{admit, method::Method};
use crate::{
    access::{Caller, CallerName},
    instrumentation,
    telemetry::CallTracer,
};

/// The layer.
#[derive(Clone, Debug)]
pub struct Observe {
    tracer: CallTracer,
    durations: Histogram<f64>,
}

impl Observe {
    /// Creates the layer.
    pub fn new(tracer: CallTracer) -> Self {
        let durations = instrumentation::meter()
            .f64_histogram("rpc.server.call.duration")
            .with_unit("s")
            .with_description("Duration of inbound calls up to the last byte of the response.")
            .build();
        Self { tracer, durations }
    }
}

impl<S> Layer<S> for Observe {
    type Service = ObservedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ObservedService {
            inner,
            observe: self.clone(),
        }
    }
}

/// A service behind [`Observe`].
#[derive(Clone, Debug)]
pub struct ObservedService<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<Request<Body>> for ObservedService<S>
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
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(self.inner.call(request));
        }
        let method = Method::of(request.uri().path());
        let authenticated = admit::caller(&request);
        let caller = authenticated
            .and_then(Caller::name)
            .map(CallerName::to_shared);
        // A rejected caller must not add spans to the traces of others.
        let none = HeaderMap::new();
        let headers = authenticated.map_or(&none, |_| request.headers());
        let (scope, span) = self
            .observe
            .tracer
            .begin(headers, method.name(), method.kind, caller);
        let mut outcome =
            CallOutcome::new(method, span, scope.clone(), self.observe.durations.clone());
        // The handler's future is created inside, so that its work before its first await is
        // in the scope.
        let mut inner = self.inner.clone();
        Box::pin(scope.run(async move {
            let (head, body) = inner.call(request).await?.into_parts();
            // A rejection can have no body. Its status is in the headers.
            outcome.record_headers(&head.headers);
            let body = ObservedBody::new(body, outcome);
            Ok(Response::from_parts(head, Body::new(body)))
        }))
    }
}

#[cfg(test)]
mod tests;
