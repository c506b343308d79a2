//! The composition root: the one place that chooses stores, windows, session
//! tiers and listeners.

mod backends;
mod healthcheck;
mod listeners;
mod ops;
mod readiness;
mod startup_log;

use std::{error::Error, pin::pin, sync::Arc};

use tokio::{runtime::Runtime, sync::Semaphore, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    backends::Backends, listeners::Listeners, readiness::Readiness, startup_log::StartupLog,
};
use crate::{
    config::{Command, Config},
    domain::{SystemClock, UuidV7},
    memory::{Dependencies, Memory},
    rpc::{
        self, CallLayers, ServiceConfig,
        admit::{Admission, Authenticator},
        guard::Guard,
        observe::Observe,
        rest::Rest,
    },
    shutdown::{self, Signals},
    telemetry::{self, Telemetry},
    transport::{self, ConnectionLimit},
};

/// The most connections to the operations port at once. Few need one, and they must not
/// use up what callers need.
const MAX_PROBES: usize = 64;

/// Why the program ended, for standard error.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Does what the configuration says, until it is done or a signal comes.
pub fn run(config: Config) -> Result<(), Failure> {
    let (format, filter) = (config.log_format, &config.log_filter);
    if config.command != Command::Serve {
        telemetry::log_only(format, filter)?;
        return on_runtime(async {
            match config.command {
                Command::Migrate => backends::migrate(&config).await,
                _ => healthcheck::check(&config.server).await,
            }
        });
    }
    // Started before the runtime and stopped after it: the exporters block, and
    // the last spans end with the last tasks.
    let telemetry = Telemetry::start(format, filter, &config.telemetry)?;
    let outcome = on_runtime(serve(config, &telemetry));
    telemetry.shutdown();
    outcome
}

fn on_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let outcome = runtime.block_on(work);
    // Nothing that is still blocked, such as a name look-up, holds the exit.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, telemetry: &Telemetry) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let server_config = &config.server;
    let listeners = Listeners::open(server_config).await?;
    let ops = ops::bind_or_pass(server_config.ops).await?;
    let backends = Backends::open(&config)?;

    let (calls, writes, background) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    let stop = CancellationToken::new();
    let (readiness, health) = Readiness::new().await;
    let memory = memory(&config, &backends, writes.clone());
    let guard = Guard::new(
        readiness.subscribe(),
        server_config.max_concurrent_calls,
        config.max_call_time,
        calls.clone(),
    );
    let routes = rpc::routes(&memory, terms(&config), health.clone())?;
    let layers = CallLayers {
        authenticator: Authenticator::new(Arc::clone(&listeners.access)),
        rest: Rest::new(server_config.max_request_bytes, server_config.reflection)?,
        observe: Observe::new(telemetry.tracing()),
        admission: Admission::new(Arc::clone(&listeners.access)),
        guard,
    };
    let startup_log = StartupLog::new(listeners.addresses.clone(), server_config);
    let connections = listeners.connections(&background, &stop);
    let certificates = server_config.asks_for_certificates();
    let serving = rpc::serve(connections, routes, layers, certificates, stop.clone());
    let server = background.spawn(serving);
    if let Some(ops) = ops {
        let routes = ops::routes(readiness.subscribe(), health, telemetry.prometheus());
        let probes = transport::incoming(vec![ops], None, ConnectionLimit::new(MAX_PROBES));
        background.spawn(rpc::serve_probes(probes, routes, stop.clone()));
    }
    background.spawn(
        stop.clone()
            .run_until_cancelled_owned(readiness.clone().reach(
                backends.clone(),
                config.migrate_on_start,
                startup_log,
            )),
    );

    let mut server = pin!(ended(server));
    tokio::select! {
        () = signals.next() => {}
        // Without its listener it is of no use to anybody.
        () = &mut server => return Err("the server ended by itself".into()),
    }
    tracing::info!("stopping");
    readiness.leave().await;
    stop.cancel();
    let drained = shutdown::drain(&calls, &writes, server, config.drain).await;
    if !drained {
        tracing::warn!("the drain deadline passed with calls under way");
    }
    backends.close().await;
    tracing::info!("stopped");
    Ok(())
}

fn memory(config: &Config, backends: &Backends, writes: TaskTracker) -> Memory {
    Memory::new(Dependencies {
        store: Arc::clone(&backends.store),
        recent: Arc::clone(&backends.recent),
        sessions: Arc::clone(&backends.sessions),
        clock: Arc::new(SystemClock),
        ids: Arc::new(UuidV7),
        writes,
        write_permits: Arc::new(Semaphore::new(config.server.max_concurrent_calls)),
        default_limit: config.max_history_messages,
    })
}

fn terms(config: &Config) -> ServiceConfig {
    ServiceConfig {
        limits: config.limits,
        max_request_bytes: config.server.max_request_bytes,
        require_user_id: config.server.require_user_id,
        reflection: config.server.reflection,
    }
}

async fn ended<E: Error>(server: JoinHandle<Result<(), E>>) {
    match server.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the server failed"),
        Err(_) => tracing::error!("the server panicked"),
    }
}
