//! The layer that records every call: its span, its duration and outcome, and the context by
//! which all work for the call finds its [`Call`].
//!
//! It runs before the guard, so that rejected calls are recorded, too. Health checks and
//! reflection (`/grpc.…`) are not recorded.

mod body;
mod call_outcome;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use opentelemetry::{context::FutureExt as _, metrics::Histogram};
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use self::{body::ObservedBody, call_outcome::CallOutcome};
use super::{admit, method::Method};
use crate::{
    access::{Caller, CallerName},
    instrumentation,
    telemetry::call::{Call, TracingConfig},
};

/// The layer.
#[derive(Clone, Debug)]
pub struct Observe {
    tracing: TracingConfig,
    durations: Histogram<f64>,
}

impl Observe {
    /// Creates the layer.
    pub fn new(tracing: TracingConfig) -> Self {
        let durations = instrumentation::meter()
            .f64_histogram("rpc.server.call.duration")
            .with_unit("s")
            .with_description("Duration of inbound calls up to the last byte of the response.")
            .build();
        Self { tracing, durations }
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
        let caller = authenticated.and_then(Caller::name).map(CallerName::as_str);
        // A rejected caller must not add spans to the traces of others.
        let none = HeaderMap::new();
        let headers = authenticated.map_or(&none, |_| request.headers());
        let name = Arc::clone(&method.name);
        let context = Call::context(headers, name, method.kind, self.observe.tracing, caller);
        let span = tracing::debug_span!(
            "call",
            otel.name = &*method.name,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = &*method.name,
        );
        // It fails only without a tracer, when no span is exported.
        let _ = span.set_parent(context.clone());
        if let Some(caller) = caller {
            span.set_attribute("enduser.id", caller.to_owned());
        }
        let outcome = CallOutcome::new(
            method,
            span.clone(),
            context.clone(),
            self.observe.durations.clone(),
        );
        // The handler's future is created inside, so that its work before its first await is
        // in the span.
        let mut inner = self.inner.clone();
        let response = {
            let (span, context) = (span.clone(), context.clone());
            async move {
                let mut outcome = outcome;
                let (head, body) = inner.call(request).await?.into_parts();
                // A rejection can have no body. Its status is in the headers.
                outcome.record_headers(&head.headers);
                let body = ObservedBody::new(body, outcome, span, context);
                Ok(Response::from_parts(head, Body::new(body)))
            }
        };
        Box::pin(response.instrument(span).with_context(context))
    }
}

#[cfg(test)]
mod tests;
