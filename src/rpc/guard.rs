//! What stands in front of every call: readiness, the limit on calls at once,
//! the deadline, and the barrier that a panic does not pass.
//!
//! Health and reflection (`/grpc.…`) pass untouched: an overloaded server still
//! says that it is one.

mod body;
mod timeout;

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Layer, Service};

use self::body::GuardedBody;
use super::status;
use crate::instrumentation;

/// How far the program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// The store has not been seen: no call is served.
    NotYet,
    /// Calls are served.
    Ready,
    /// It is about to end. Calls that still come are served.
    Leaving,
}

/// The layer. A clone shares the limit.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ready: watch::Receiver<ServingState>,
    permits: Arc<Semaphore>,
    calls: TaskTracker,
    max_call_time: Duration,
}

impl Guard {
    /// Refuses calls while `ready` says not yet, and those beyond `max_calls` at once; ends
    /// each at its `grpc-timeout` or after `max_call_time`. `calls` tracks those
    /// that are under way.
    pub fn new(
        ready: watch::Receiver<ServingState>,
        max_calls: usize,
        max_call_time: Duration,
        calls: TaskTracker,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(max_calls));
        measure(&permits, max_calls);
        Self(Arc::new(Shared {
            ready,
            permits,
            calls,
            max_call_time,
        }))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded {
            inner,
            shared: Arc::clone(&self.0),
        }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The routes behind are always ready; the limit is the guard's own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let shared = Arc::clone(&self.shared);
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(async move { Ok(answer(inner.call(request).await)) });
        }
        Box::pin(async move { Ok(shared.guarded(&mut inner, request).await) })
    }
}

impl Shared {
    async fn guarded<S>(&self, inner: &mut S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        S::Error: std::fmt::Display,
    {
        if *self.ready.borrow() == ServingState::NotYet {
            return status::starting().into_http();
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return status::too_many_calls().into_http();
        };
        let call = self.calls.token();
        let timeout = timeout::of(request.headers(), self.max_call_time);
        if timeout.is_zero() {
            // A timer would take until the next millisecond to say so, and the
            // transport's could be first.
            return status::deadline_exceeded().into_http();
        }
        let deadline = Instant::now() + timeout;
        // The handler is made inside, so that a panic before its first await
        // is caught too.
        let handled = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
        match tokio::time::timeout_at(deadline, handled).await {
            Err(_) => status::deadline_exceeded().into_http(),
            // The panic itself was logged where it happened.
            Ok(Err(_)) => status::internal().into_http(),
            Ok(Ok(response)) => answer(response)
                .map(|body| Body::new(GuardedBody::new(body, deadline, (permit, call)))),
        }
    }
}

/// Shows how near the limit is.
fn measure(permits: &Arc<Semaphore>, max_calls: usize) {
    let (meter, permits) = (instrumentation::meter(), Arc::clone(permits));
    meter
        .u64_observable_gauge("conversation_memory.calls.active")
        .with_unit("{call}")
        .with_description("Calls under way.")
        .with_callback(move |gauge| {
            gauge.observe((max_calls - permits.available_permits()) as u64, &[]);
        })
        .build();
    meter
        .u64_observable_gauge("conversation_memory.calls.limit")
        .with_unit("{call}")
        .with_description("The most calls at once; those beyond are RESOURCE_EXHAUSTED.")
        .with_callback(move |gauge| gauge.observe(max_calls as u64, &[]))
        .build();
}

/// The response of the routes, with the codes that clients expect.
fn answer<E: std::fmt::Display>(response: Result<Response<Body>, E>) -> Response<Body> {
    match response {
        Ok(mut response) => {
            status::replace_out_of_range(response.headers_mut());
            response
        }
        Err(error) => {
            tracing::error!(%error, "a route failed");
            status::internal().into_http()
        }
    }
}
