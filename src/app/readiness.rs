use std::{error::Error as _, sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{backends::Backends, startup_log::StartupLog};
use crate::{
    rpc::{SERVICE_NAMES, guard::ServingState},
    store::SchemaError,
};

/// How long to wait before the store is looked at again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The most bytes of a request for health.
const LONGEST_QUESTION: usize = 4 << 10;

/// Whether calls are served. It is reached once, when the store's schema has
/// been seen, and is not lost to a store or a Redis that goes away later.
#[derive(Clone, Debug)]
pub(super) struct Readiness {
    ready: Arc<watch::Sender<ServingState>>,
    health: HealthReporter,
}

impl Readiness {
    /// Not ready, and a health service that says so.
    pub(super) async fn new() -> (Self, HealthServer<HealthService>) {
        let (health, _) = tonic_health::server::health_reporter();
        // Anybody may ask: what asks is a name and takes no memory.
        let service = HealthServer::new(HealthService::from_health_reporter(health.clone()))
            .max_decoding_message_size(LONGEST_QUESTION);
        let readiness = Self {
            ready: Arc::new(watch::Sender::new(ServingState::NotYet)),
            health,
        };
        readiness.report(ServingStatus::NotServing).await;
        (readiness, service)
    }

    /// Follows it.
    pub(super) fn subscribe(&self) -> watch::Receiver<ServingState> {
        self.ready.subscribe()
    }

    /// Prepares the store, as often as it takes, and becomes ready.
    pub(super) async fn reach(self, backends: Backends, migrate: bool, startup_log: StartupLog) {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        while let Err(error) = backends.store.prepare(migrate).await {
            say(&error, &mut said);
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        backends.greet_redis().await;
        self.ready.send_replace(ServingState::Ready);
        self.report(ServingStatus::Serving).await;
        startup_log.say();
    }

    /// Says that no more calls are wanted. Those that still come are served.
    pub(super) async fn leave(&self) {
        self.ready.send_replace(ServingState::Leaving);
        self.report(ServingStatus::NotServing).await;
    }

    async fn report(&self, status: ServingStatus) {
        for name in SERVICE_NAMES.into_iter().chain([""]) {
            self.health.set_service_status(name, status).await;
        }
    }
}

/// Says what is in the way, once and not at every attempt.
fn say(error: &SchemaError, said: &mut String) {
    let whole = error.with_cause();
    if *said == whole {
        return;
    }
    let cause = error.source().map(ToString::to_string);
    let cause = cause.as_deref();
    if matches!(error, SchemaError::Unavailable(_)) {
        tracing::warn!(cause, "not serving yet: {error}");
    } else {
        tracing::error!(cause, "not serving: {error}");
    }
    *said = whole;
}
