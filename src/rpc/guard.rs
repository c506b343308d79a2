//! The layer that enforces the limits on calls: readiness, the limit on concurrent calls and the
//! shares of callers in it, the deadline, and the conversion of panics to `INTERNAL`.
//!
//! Health checks and reflection (`/grpc.…`) have limits of their own, so that an overloaded server
//! still reports its health.

mod body;
mod probes;
mod timeout;

pub use self::probes::ProbeGuard;

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{Request, Response};
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::{Layer, Service};

use self::{
    body::{CallPermit, GuardedBody},
    probes::ProbeLimits,
};
use super::{method::Method, status};
use crate::{
    fairness::{FairSemaphore, Permits, ShareKey},
    instrumentation,
    log_throttle::LogThrottle,
    rejections::Limit,
    transport::Exchange,
};

/// A deadline that is not longer may pass unnoticed, since timers have a resolution of a millisecond.
const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

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
    permits: FairSemaphore,
    probes: ProbeLimits,
    calls: TaskTracker,
    max_call_time: Duration,
}

impl Guard {
    /// Creates a layer that rejects calls until `serving` is no longer
    /// [`ServingState::Starting`] and calls beyond `max_calls` concurrent ones or beyond the share of
    /// their caller, and that ends each call at its `grpc-timeout` or after `max_call_time`. `calls`
    /// tracks the calls in progress.
    pub fn new(
        serving: watch::Receiver<ServingState>,
        max_calls: usize,
        max_call_time: Duration,
        calls: TaskTracker,
    ) -> Self {
        let permits = FairSemaphore::new(max_calls);
        register_gauges(&permits);
        Self(Arc::new(GuardState {
            serving,
            permits,
            probes: ProbeLimits::new(),
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
        if request.uri().path().starts_with(probes::PATH_PREFIX) {
            return Box::pin(async move {
                Ok(guard
                    .probes
                    .call(&mut inner, request, guard.max_call_time)
                    .await)
            });
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
        let exchange = Exchange::of(&request).cloned();
        let key = exchange
            .as_ref()
            .map_or_else(ShareKey::current, Exchange::key);
        let Some(slot) = self.acquire_slot(key, exchange.as_ref()) else {
            return status::too_many_calls(self.permits.limit()).into_http();
        };
        let permit: CallPermit = Arc::new((Arc::clone(&slot), self.calls.token()));
        let timeout = timeout::of(request.headers(), self.max_call_time);
        if timeout <= TIMER_RESOLUTION {
            return status::deadline_exceeded().into_http();
        }
        let deadline = Instant::now() + timeout;
        let expired = if timeout < self.max_call_time {
            status::deadline_exceeded
        } else {
            status::call_time_exceeded
        };
        if let Some(exchange) = &exchange {
            exchange.accept_call();
            exchange.set_deadline(deadline);
            exchange.hold(SlotRelease(slot));
            exchange.hold(Arc::clone(&permit));
        }
        let method = Method::of(request.uri().path());
        let call = key.scope(inner_call(
            inner,
            request,
            Limit::RequestBytes,
            exchange.as_ref(),
        ));
        match tokio::time::timeout_at(deadline, call).await {
            Err(_) => expired().into_http(),
            Ok(response) => {
                let (head, body) = response.into_parts();
                let mut body = GuardedBody::new(body, Some(deadline), permit, expired);
                if let Some(exchange) = exchange
                    && !method.is_server_streaming
                    && !exchange.reserve_response(body.prefetch())
                {
                    // A write has been executed: its caller must not simply repeat it.
                    let rejected = if method.is_write() {
                        status::response_of_write_not_sent()
                    } else {
                        status::too_many_response_bytes(exchange.max_response_bytes())
                    };
                    return rejected.into_http();
                }
                Response::from_parts(head, Body::new(body))
            }
        }
    }

    /// Acquires a slot. If there is none, it takes that of a call that waits for its peer, so that
    /// such calls do not keep others out.
    fn acquire_slot(&self, key: ShareKey, exchange: Option<&Exchange>) -> Option<Arc<CallSlot>> {
        let acquire = || self.permits.try_acquire(key, 1);
        let permit = acquire().or_else(|| {
            let is_within_share = self.permits.is_within_share(key, 1);
            let has_displaced = exchange?.displace_call(is_within_share);
            has_displaced.then(acquire)?
        });
        Some(Arc::new(CallSlot(Mutex::new(Some(permit?)))))
    }
}

/// Slot of a call among the concurrent ones.
#[derive(Debug)]
struct CallSlot(Mutex<Option<Permits>>);

/// Releases the slot of a call when it is dropped, even if the call continues.
#[derive(Debug)]
struct SlotRelease(Arc<CallSlot>);

impl Drop for SlotRelease {
    fn drop(&mut self) {
        let mut permit = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let released = permit.take();
        drop(permit);
        drop(released);
    }
}

/// Calls the routes. A panic is the status `INTERNAL`. `size_limit` is the limit on the bytes of the
/// request, and `exchange` that of an accepted call.
async fn inner_call<S>(
    inner: &mut S,
    request: Request<Body>,
    size_limit: Limit,
    exchange: Option<&Exchange>,
) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: std::fmt::Display,
{
    // The handler's future is created inside, so that a panic before its first await is
    // caught, too.
    let response = AssertUnwindSafe(async { inner.call(request).await }).catch_unwind();
    match response.await {
        // The panic hook has logged the panic.
        Err(_) => status::internal().into_http(),
        Ok(response) => response_of(response, size_limit, exchange),
    }
}

/// Registers the metrics of the concurrent calls and of their limit.
fn register_gauges(permits: &FairSemaphore) {
    let (meter, max_calls) = (instrumentation::meter(), permits.limit());
    let permits = permits.clone();
    meter
        .u64_observable_gauge("conversation_memory.calls.active")
        .with_unit("{call}")
        .with_description("Calls in progress.")
        .with_callback(move |gauge| gauge.observe(permits.used() as u64, &[]))
        .build();
    meter
        .u64_observable_gauge("conversation_memory.calls.limit")
        .with_unit("{call}")
        .with_description("Limit on concurrent calls. Calls beyond it end with RESOURCE_EXHAUSTED.")
        .with_callback(move |gauge| gauge.observe(max_calls as u64, &[]))
        .build();
}

/// The response of the routes, with the codes that clients expect.
fn response_of<E: std::fmt::Display>(
    response: Result<Response<Body>, E>,
    size_limit: Limit,
    exchange: Option<&Exchange>,
) -> Response<Body> {
    match response {
        Ok(mut response) => {
            let is_undecodable = status::replace_decoder_codes(response.headers_mut(), size_limit);
            if is_undecodable && let Some(exchange) = exchange {
                exchange.reject_request();
            }
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
