//! The layer that enforces the limits on calls: readiness, the limit on concurrent calls, the
//! deadline, and the conversion of panics to `INTERNAL`.
//!
//! Health checks and reflection (`/grpc.…`) pass without limits, so that an overloaded server
//! still reports its health.

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
use crate::{instrumentation, log_throttle::LogThrottle};

static FAILURE_LOG: LogThrottle = LogThrottle::new();

/// Serving state of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingState {
    /// The store has not been prepared: calls are rejected.
    Starting,
    /// The process serves calls.
    Serving,
    /// The process drains before it exits. It still serves new calls.
    Draining,
}

/// The layer. Clones share its limits.
#[derive(Clone, Debug)]
pub struct Guard(Arc<GuardState>);

#[derive(Debug)]
struct GuardState {
    serving: watch::Receiver<ServingState>,
    permits: Arc<Semaphore>,
    max_calls: usize,
    calls: TaskTracker,
    max_call_time: Duration,
}

impl Guard {
    /// Creates a layer that rejects calls until `serving` is no longer
    /// [`ServingState::Starting`] and calls beyond `max_calls` concurrent ones, and that ends
    /// each call at its `grpc-timeout` or after `max_call_time`. `calls` tracks the calls in
    /// progress.
    pub fn new(
        serving: watch::Receiver<ServingState>,
        max_calls: usize,
        max_call_time: Duration,
        calls: TaskTracker,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(max_calls));
        register_gauges(&permits, max_calls);
        Self(Arc::new(GuardState {
            serving,
            permits,
            max_calls,
            calls,
            max_call_time,
        }))
    }
}

impl<S> Layer<S> for Guard {
    type Service = GuardedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GuardedService {
            inner,
            guard: Arc::clone(&self.0),
        }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone, Debug)]
pub struct GuardedService<S> {
    inner: S,
    guard: Arc<GuardState>,
}

impl<S> Service<Request<Body>> for GuardedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The routes are always ready, and the limit rejects calls instead of delaying them.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut inner = self.inner.clone();
        let guard = Arc::clone(&self.guard);
        if request.uri().path().starts_with("/grpc.") {
            return Box::pin(async move { Ok(response_of(inner.call(request).await)) });
        }
        Box::pin(async move { Ok(guard.call(&mut inner, request).await) })
    }
}

impl GuardState {
    async fn call<S>(&self, inner: &mut S, request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        S::Error: std::fmt::Display,
    {
        if *self.serving.borrow() == ServingState::Starting {
            return status::starting().into_http();
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return status::too_many_calls(self.max_calls).into_http();
        };
        let call = self.calls.token();
        let timeout = timeout::of(request.headers(), self.max_call_time);
        if timeout.is_zero() {
            // A timer has a resolution of a millisecond, so that the transport's own timer,
            // which ends the call with another code, could fire first.
            return status::deadline_exceeded().into_http();
        }
        let deadline = Instant::now() + timeout;
        // The handler's future is created inside, so that a panic before its first await is
        // caught, too.
        let response = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
        match tokio::time::timeout_at(deadline, response).await {
            Err(_) => status::deadline_exceeded().into_http(),
            // The panic hook has logged the panic.
            Ok(Err(_)) => status::internal().into_http(),
            Ok(Ok(response)) => response_of(response)
                .map(|body| Body::new(GuardedBody::new(body, deadline, (permit, call)))),
        }
    }
}

/// Registers the metrics of the concurrent calls and of their limit.
fn register_gauges(permits: &Arc<Semaphore>, max_calls: usize) {
    let (meter, permits) = (instrumentation::meter(), Arc::clone(permits));
    meter
        .u64_observable_gauge("conversation_memory.calls.active")
        .with_unit("{call}")
        .with_description("Calls in progress.")
        .with_callback(move |gauge| {
            gauge.observe((max_calls - permits.available_permits()) as u64, &[]);
        })
        .build();
    meter
        .u64_observable_gauge("conversation_memory.calls.limit")
        .with_unit("{call}")
        .with_description("Limit on concurrent calls. Calls beyond it end with RESOURCE_EXHAUSTED.")
        .with_callback(move |gauge| gauge.observe(max_calls as u64, &[]))
        .build();
}

/// The response of the routes, with the codes that clients expect.
fn response_of<E: std::fmt::Display>(response: Result<Response<Body>, E>) -> Response<Body> {
    match response {
        Ok(mut response) => {
            status::replace_out_of_range(response.headers_mut());
            response
        }
        Err(error) => {
            let error = error.to_string();
            if let Some(suppressed) = FAILURE_LOG.admit(&error) {
                let suppressed = suppressed.count();
                tracing::error!(error, suppressed, "the routes have failed");
            }
            status::internal().into_http()
        }
    }
}
