//! Composition root: creates the store, the recent window, the session tier and the
//! listeners that are configured, and connects them.

mod backends;
mod data_dir;
mod healthcheck;
mod inspect_window;
mod listeners;
mod ops;
mod readiness;
mod startup_log;

use std::{
    error::Error, num::NonZero, pin::pin, process::ExitCode, sync::Arc,
    thread::available_parallelism,
};

use tokio::{runtime::Builder, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::dispatcher;

use self::{
    backends::Backends, data_dir::DataDirLock, listeners::Listeners, readiness::Readiness,
    startup_log::StartupLog,
};
use crate::{
    access::HostPolicy,
    commands::{Completion, export, import},
    config::{Command, Config, Misspelled, StoreBackend, WebConfig},
    domain::{SystemClock, UuidV7},
    fairness::FairSemaphore,
    memory::{Dependencies, Memory},
    os_error, rejections,
    rpc::{
        self, CallLayers, ServerLimits, ServiceConfig,
        admit::{Admission, Authenticator},
        guard::Guard,
        observe::Observe,
        rest,
        web::WebGuard,
    },
    shutdown::{self, Signals},
    telemetry::{self, Telemetry},
    transport::{self, ByteBudgets, OpenConnections},
};

/// Upper bound on connections to the operations port. Probes and scrapers need few, and must
/// not use up the file descriptors of callers.
const MAX_OPS_CONNECTIONS: usize = 64;

/// Upper bound on concurrent reads of messages. Each can hold several megabytes, and more of them than
/// connections to the store, or than processors, only take longer.
const MAX_CONCURRENT_READS: usize = 4;

/// Upper bound on the threads that serve calls. Four serve more calls than PostgreSQL can save, and on a
/// machine with many processors, more threads take more memory and wake each other more often.
const MAX_WORKERS: usize = 4;

/// Number of tasks that a thread runs before it looks for events of sockets, while it is never idle.
/// With tokio's default of 61, connections that always have bytes to read delay all others.
const TASKS_PER_EVENTS: u32 = 16;

/// Error that ends the program, as one line for operators.
type Failure = Box<dyn Error + Send + Sync>;

/// Exit status of a command that has rejected something, and done everything else.
const PARTIAL: u8 = 3;

/// Runs the configured command; `serve` runs until SIGTERM or SIGINT. An error is logged, or
/// written to standard error if the log is not initialized or omits errors.
pub fn run(config: Config) -> ExitCode {
    let logs = config.logs.clone();
    match execute(config) {
        Ok(Completion::Complete) => ExitCode::SUCCESS,
        Ok(Completion::Partial) => ExitCode::from(PARTIAL),
        Err(error) => {
            if dispatcher::has_been_set() && logs.includes_errors() {
                tracing::error!("{error}");
            } else {
                eprintln!("conversation-memory: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(config: Config) -> Result<Completion, Failure> {
    let (format, filter) = (config.logs.format, &config.logs.filter);
    let listen = &config.server.listen;
    match &config.command {
        Command::Serve => {}
        // Their errors are written to standard error, like their reports.
        Command::Import(args) => return on_runtime(import::import(args, listen)),
        Command::Export(args) => return on_runtime(export::export(args, listen)),
        Command::Migrate
        | Command::Reindex
        | Command::InspectWindow { .. }
        | Command::Healthcheck => {
            telemetry::log_only(format, filter)?;
            return on_runtime(administrate(&config));
        }
    }
    // Telemetry outlives the runtime: its exporters block, and the last spans end with the
    // last tasks.
    let telemetry = Telemetry::start(format, filter, &config.telemetry)?;
    let outcome = on_runtime(serve(config, &telemetry));
    telemetry.shutdown();
    outcome.map(|()| Completion::Complete)
}

/// Runs a command of operators, which uses the settings of the sidecar.
async fn administrate(config: &Config) -> Result<Completion, Failure> {
    match config.command {
        Command::Migrate => backends::migrate(config).await?,
        Command::Reindex => backends::reindex(config).await?,
        Command::InspectWindow { conversation } => {
            inspect_window::inspect_window(config, conversation).await?;
        }
        _ => healthcheck::check(config).await?,
    }
    Ok(Completion::Complete)
}

fn on_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let workers = available_parallelism().map_or(MAX_WORKERS, NonZero::get);
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers.min(MAX_WORKERS));
    builder.enable_all().event_interval(TASKS_PER_EVENTS);
    let runtime = builder.build().map_err(|error| {
        let cause = os_error::describe(&error);
        format!("cannot start the runtime: {cause}")
    })?;
    let outcome = runtime.block_on(work);
    // A task that is still blocked, for example in a name lookup, must not delay the exit.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, telemetry: &Telemetry) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(|error| {
        let cause = os_error::describe(&error);
        format!("cannot install signal handlers: {cause}")
    })?;
    rejections::export_metric();
    for Misspelled { found, setting } in &config.misspelled {
        tracing::warn!(
            "the environment variable {found} is not a setting: did you mean {setting}?"
        );
    }
    if !config.empty.is_empty() {
        let names = config.empty.join(", ");
        tracing::warn!("environment variables without a value count as not set: {names}");
    }
    let listeners = Listeners::open(&config).await?;
    let ops = ops::bind(config.server.ops).await?;
    let backends = Backends::open(&config)?;
    // Held until the process ends, because tasks can use the folder until then.
    let _data_dir = tokio::select! {
        lock = lock_data_dir(&config.store.backend) => lock?,
        () = signals.next() => return Ok(()),
    };

    let (calls, writes, background) = (TaskTracker::new(), TaskTracker::new(), TaskTracker::new());
    let stop = CancellationToken::new();
    let (readiness, health) = Readiness::new().await;
    let limits = server_limits(&config, &listeners.connections);
    let memory = memory(
        &config,
        &backends,
        writes.clone(),
        limits.budgets.responses(),
    );
    let guard = Guard::new(
        readiness.subscribe(),
        config.limits.concurrent_calls,
        config.limits.call_time,
        calls.clone(),
    );
    let api = rpc::api(&memory, service_config(&config), health.clone())?;
    let (web, ops_web) = web_guards(&config);
    let layers = CallLayers {
        web,
        authenticator: Authenticator::new(Arc::clone(&listeners.access)),
        rest: rest::layer(
            config.limits.request_bytes,
            config.server.reflection,
            config.auth.tokens_file.is_some(),
        )?,
        observe: Observe::new(telemetry.tracer()),
        admission: Admission::new(Arc::clone(&listeners.access)),
        guard,
    };
    let startup_log = StartupLog::new(listeners.addresses.clone(), &config.auth);
    let connections = listeners.into_connections(&background, &stop);
    let serving = rpc::serve(connections, api, layers, limits, stop.clone());
    let server = background.spawn(serving);
    if let Some(ops) = ops {
        let routes = ops::routes(readiness.subscribe(), health, telemetry.prometheus());
        let limit = OpenConnections::new(MAX_OPS_CONNECTIONS);
        let connections = transport::incoming(vec![ops], None, limit.clone());
        background.spawn(rpc::serve_probes(
            connections,
            limit,
            routes,
            ops_web,
            stop.clone(),
        ));
    }
    let startup = readiness.clone().become_ready(
        backends.clone(),
        memory,
        config.store.migrate_on_start,
        startup_log,
    );
    background.spawn(stop.clone().run_until_cancelled_owned(startup));

    let mut server = pin!(server_ended(server));
    tokio::select! {
        () = signals.next() => {}
        // A process without its server would keep the pod alive without purpose.
        () = &mut server => return Err("the server stopped unexpectedly".into()),
    }
    tracing::info!("stopping");
    readiness.drain().await;
    stop.cancel();
    let drained = shutdown::drain(&calls, &writes, server, config.server.drain).await;
    if !drained {
        tracing::warn!("drain deadline exceeded with calls in progress");
    }
    backends.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Locks the folder of the embedded store, if it is configured.
///
/// # Errors
/// Fails if another process has the lock.
async fn lock_data_dir(store: &StoreBackend) -> Result<Option<DataDirLock>, Failure> {
    match store {
        StoreBackend::Embedded { data_dir, .. } => Ok(Some(DataDirLock::acquire(data_dir).await?)),
        StoreBackend::Postgres(_) => Ok(None),
    }
}

/// Creates the rules about requests of web pages, of the API and of the operations port.
fn web_guards(config: &Config) -> (WebGuard, WebGuard) {
    let WebConfig {
        allowed_hosts,
        allowed_origins,
    } = config.web.clone();
    (
        WebGuard::new(HostPolicy::of_api(allowed_hosts.clone()), allowed_origins),
        WebGuard::new(HostPolicy::of_operations(allowed_hosts), Vec::new()),
    )
}

fn memory(
    config: &Config,
    backends: &Backends,
    writes: TaskTracker,
    response_bytes: FairSemaphore,
) -> Memory {
    Memory::new(Dependencies {
        store: Arc::clone(&backends.store),
        recent: Arc::clone(&backends.recent),
        sessions: Arc::clone(&backends.sessions),
        clock: Arc::new(SystemClock),
        ids: Arc::new(UuidV7),
        writes,
        write_permits: FairSemaphore::new(config.limits.concurrent_calls),
        read_permits: FairSemaphore::new(MAX_CONCURRENT_READS),
        response_bytes,
        import_permit: FairSemaphore::new(1),
        default_limit: config.conversations.history_messages,
        compaction_tokens: config.conversations.compaction_tokens,
        token_encoding: config.conversations.token_encoding,
    })
}

fn service_config(config: &Config) -> ServiceConfig {
    ServiceConfig {
        limits: config.limits.content,
        max_request_bytes: config.limits.request_bytes,
        require_user_id: config.auth.require_user_id,
        reflection: config.server.reflection,
    }
}

fn server_limits(config: &Config, connections: &OpenConnections) -> ServerLimits {
    let limits = &config.limits;
    ServerLimits {
        connections: connections.clone(),
        budgets: ByteBudgets::with_metrics(
            limits.pending_request_bytes,
            limits.pending_response_bytes,
            limits.request_bytes,
        ),
        call_time: limits.call_time,
        requires_certificates: config.auth.requires_client_certificate(),
    }
}

async fn server_ended(server: JoinHandle<()>) {
    if server.await.is_err() {
        tracing::error!("server panicked");
    }
}
