//! What is told of every call: a span, how long it took and how it ended, and
//! the context that whatever is done for it finds its call in.
//!
//! It stands in front of the guard, so that calls which are turned away are seen
//! as well. Health and reflection (`/grpc.…`) pass unseen.

mod body;
mod ending;

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

use self::{body::ObservedBody, ending::Ending};
use super::{admit, method::Method};
use crate::{
    access::{Caller, Name},
    instrumentation,
    telemetry::call::{Call, Tracing},
};

/// The layer.
#[derive(Clone, Debug)]
pub struct Observe {
    tracing: Tracing,
    durations: Histogram<f64>,
}

impl Observe {
    /// Traces calls as it is said.
    pub fn new(tracing: Tracing) -> Self {
        let durations = instrumentation::meter()
            .f64_histogram("rpc.server.call.duration")
            .with_unit("s")
            .with_description("Duration of inbound calls, up to their last byte.")
            .build();
        Self { tracing, durations }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed {
            inner,
            observe: self.clone(),
        }
    }
}

/// A service that is observed.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<Request<Body>> for Observed<S>
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
        let admitted = admit::caller(&request);
        let caller = admitted.and_then(Caller::name).map(Name::as_str);
        // Who may not call has no say in anybody's traces.
        let none = HeaderMap::new();
        let headers = admitted.map_or(&none, |_| request.headers());
        let name = Arc::clone(&method.name);
        let context = Call::context(headers, name, method.kind, self.observe.tracing, caller);
        let span = tracing::debug_span!(
            "call",
            otel.name = &*method.name,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = &*method.name,
        );
        // Without a tracer there is nothing that could have a parent.
        let _ = span.set_parent(context.clone());
        if let Some(caller) = caller {
            span.set_attribute("enduser.id", caller.to_owned());
        }
        let ending = Ending::new(
            method,
            span.clone(),
            context.clone(),
            self.observe.durations.clone(),
        );
        // Made inside, so that what a handler does before its first await is seen.
        let mut inner = self.inner.clone();
        let answered = {
            let (span, context) = (span.clone(), context.clone());
            async move {
                let mut ending = ending;
                let (head, body) = inner.call(request).await?.into_parts();
                // A refusal may have no body; its status stands in the head.
                ending.saw(&head.headers);
                let body = ObservedBody::new(body, ending, span, context);
                Ok(Response::from_parts(head, Body::new(body)))
            }
        };
        Box::pin(answered.instrument(span).with_context(context))
    }
}

#[cfg(test)]
mod tests;
