use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tower::Service;

use super::{
    body::{CallPermit, GuardedBody},
    inner_call,
};
use crate::{
    fairness::{FairSemaphore, ShareKey},
    rejections::Limit,
    rpc::status,
    transport::Exchange,
};

/// Limit on concurrent health checks and on reflection, and again on watched health states.
const MAX_PROBES: usize = 64;

/// Time in which the request of a probe must have arrived.
const MAX_REQUEST_TIME: Duration = Duration::from_secs(5);

/// The same while more than half of the probes are in progress, so that requests that never arrive
/// do not keep others out.
const MAX_REQUEST_TIME_WHEN_BUSY: Duration = Duration::from_millis(250);

/// Duration that stands for no limit: a health state is watched for as long as the caller wants.
const UNLIMITED: Duration = Duration::from_hours(24 * 365);

/// Begin of the paths of health checks and reflection.
pub(super) const PATH_PREFIX: &str = "/grpc.";

/// Path of the method that watches the health state.
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Limits on health checks and reflection, which any peer may call if they need no authentication.
/// They are shared between connections.
#[derive(Debug)]
pub(super) struct ProbeLimits {
    checks: FairSemaphore,
    watches: FairSemaphore,
}

impl ProbeLimits {
    pub(super) fn new() -> Self {
        Self {
            checks: FairSemaphore::new(MAX_PROBES),
            watches: FairSemaphore::new(MAX_PROBES),
        }
    }

    /// Calls the routes for a probe, whose response takes `max_time` at most if the probe does not
    /// watch the health state.
    pub(super) async fn call<S>(
        &self,
        inner: &mut S,
        request: Request<Body>,
        max_time: Duration,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        S::Error: std::fmt::Display,
    {
        let exchange = Exchange::of(&request).cloned();
        let is_watch = request.uri().path() == WATCH;
        let (permits, limit) = if is_watch {
            (&self.watches, Limit::HealthWatches)
        } else {
            (&self.checks, Limit::Probes)
        };
        let key = exchange
            .as_ref()
            .map_or_else(ShareKey::current, Exchange::connection_key);
        let Some(permit) = permits.try_acquire(key, 1) else {
            return status::too_many_probes(limit, permits.limit()).into_http();
        };
        let permit: CallPermit = Arc::new(permit);
        let now = Instant::now();
        let deadline = now + if is_watch { UNLIMITED } else { max_time };
        if let Some(exchange) = exchange {
            exchange.set_deadline(deadline);
            exchange.hold(Arc::clone(&permit));
        }
        let request_time = if 2 * permits.used() > permits.limit() {
            MAX_REQUEST_TIME_WHEN_BUSY
        } else {
            MAX_REQUEST_TIME
        };
        let call = inner_call(inner, request, Limit::ProbeBytes, None);
        match tokio::time::timeout_at(now + request_time, call).await {
            Err(_) => status::deadline_exceeded().into_http(),
            Ok(response) => {
                let deadline = (!is_watch).then_some(deadline);
                response.map(|body| {
                    Body::new(GuardedBody::new(
                        body,
                        deadline,
                        permit,
                        status::deadline_exceeded,
                    ))
                })
            }
        }
    }
}

/// Limits on health checks and reflection alone, for a port that serves no calls. Clones share them.
#[derive(Clone, Debug)]
pub struct ProbeGuard {
    limits: Arc<ProbeLimits>,
    max_time: Duration,
}

impl ProbeGuard {
    /// Creates limits of their own. A probe takes `max_time` at most.
    pub fn new(max_time: Duration) -> Self {
        Self {
            limits: Arc::new(ProbeLimits::new()),
            max_time,
        }
    }

    /// Calls the routes within the limits.
    ///
    /// # Errors
    /// The result is never an error: a rejected probe has a response with a status.
    pub async fn call<S>(
        self,
        mut inner: S,
        request: Request<Body>,
    ) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        if !request.uri().path().starts_with(PATH_PREFIX) {
            return inner.call(request).await;
        }
        Ok(self.limits.call(&mut inner, request, self.max_time).await)
    }
}
