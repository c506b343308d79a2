use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{backends::Backends, startup_log::StartupLog};
use crate::{
    jitter,
    memory::Memory,
    rpc::{SERVICE_NAMES, guard::ServingState},
    store::SchemaError,
};

/// First interval between two attempts to prepare the store; doubled after each.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(100);
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Upper bound on the size of a health request, which contains only a service name. Health
/// needs no authentication, so a request must not occupy memory.
const MAX_HEALTH_REQUEST_BYTES: usize = 4 << 10;

/// Serving state of the process, published to the guard, to `/readyz` and to gRPC health. It
/// becomes ready once, when the store's schema has been validated, and stays ready if the store
/// or Redis becomes unavailable later.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    state: Arc<watch::Sender<ServingState>>,
    health: HealthReporter,
}

impl Readiness {
    /// Creates the state as not ready, and the health service that reports it.
    pub(super) async fn new() -> (Self, HealthServer<HealthService>) {
        let (health, _) = tonic_health::server::health_reporter();
        let service = HealthServer::new(HealthService::from_health_reporter(health.clone()))
            .max_decoding_message_size(MAX_HEALTH_REQUEST_BYTES);
        let readiness = Self {
            state: Arc::new(watch::Sender::new(ServingState::Starting)),
            health,
        };
        readiness.report(ServingStatus::NotServing).await;
        (readiness, service)
    }

    /// Returns a receiver of state changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<ServingState> {
        self.state.subscribe()
    }

    /// Prepares the store, retrying until it succeeds, and becomes ready. Then completes pending
    /// invalidations and removes expired items until the future is dropped.
    ///
    /// # Cancel safety
    /// If the future is dropped before, the process stays not ready.
    pub(super) async fn become_ready(
        self,
        backends: Backends,
        memory: Memory,
        migrate: bool,
        startup_log: StartupLog,
    ) {
        let mut interval = MIN_RETRY_INTERVAL;
        let mut logged = None;
        while let Err(error) = backends.store.prepare(migrate).await {
            log_once(&error, backends.store_setting, &mut logged);
            sleep(jitter::between(interval / 2, interval)).await;
            interval = MAX_RETRY_INTERVAL.min(interval * 2);
        }
        backends.wait_for_redis().await;
        // The first calls can read windows then.
        memory.complete_present_invalidations().await;
        self.state.send_replace(ServingState::Serving);
        self.report(ServingStatus::Serving).await;
        startup_log.write();
        tokio::join!(
            memory.complete_invalidations(),
            memory.remove_expired_items()
        );
    }

    /// Reports that the process is stopping. Calls that still arrive are served.
    pub(super) async fn drain(&self) {
        self.state.send_replace(ServingState::Draining);
        self.report(ServingStatus::NotServing).await;
    }

    async fn report(&self, status: ServingStatus) {
        for name in SERVICE_NAMES.into_iter().chain([""]) {
            self.health.set_service_status(name, status).await;
        }
    }
}

/// Logs an error unless it is the one that was logged last, so that a lasting condition is
/// not logged at every attempt.
fn log_once(error: &SchemaError, setting: &str, logged: &mut Option<String>) {
    let text = error.with_cause();
    if logged.as_ref() == Some(&text) {
        return;
    }
    let cause = error.source().map(ToString::to_string);
    let cause = cause.as_deref();
    if matches!(error, SchemaError::Unavailable(_)) {
        tracing::warn!(setting, cause, "not serving yet: {error}");
    } else {
        tracing::error!(setting, cause, "not serving: {error}");
    }
    *logged = Some(text);
}
