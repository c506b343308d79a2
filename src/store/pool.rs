use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Histogram, Meter},
};
use sqlx::{Database, Transaction, pool::PoolConnection};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::operation_error::{BackendError, Cause, ErrorKind};
use crate::{
    fairness::{FairSemaphore, Permits, ShareKey},
    instrumentation, jitter,
    patience::with_patience,
};

/// Time that a call waits for a connection before the server is probed.
const PROBE_AFTER: Duration = Duration::from_millis(300);

/// Time for which the result of a probe is used.
const PROBE_LIFETIME: Duration = Duration::from_secs(2);

/// SQLSTATE code with which a server rejects a connection because it has too many.
const TOO_MANY_CONNECTIONS: &str = "53300";

/// Time after which a connection is requested again that the server had no place for.
const MIN_PLACE_INTERVAL: Duration = Duration::from_millis(20);
const MAX_PLACE_INTERVAL: Duration = Duration::from_millis(120);

/// Pool of connections with metrics of its use and of the time that calls wait for it.
pub(super) struct MeteredPool<DB: Database> {
    connections: Arc<sqlx::Pool<DB>>,
    /// As many permits as connections, which are shared fairly between callers.
    shares: FairSemaphore,
    name: KeyValue,
    wait_time: Histogram<f64>,
    timeouts: Counter<u64>,
    probe: Option<ServerProbe>,
    has_alternatives: bool,
    /// Number of waits for a connection so far.
    waits: AtomicU64,
}

/// A pooled connection, or a transaction on one, and the permit that counts it for its caller.
pub(super) struct Pooled<T> {
    value: T,
    _permits: Permits,
}

impl<T> Pooled<T> {
    /// Ends the value with `end`, and returns the permit afterwards.
    pub(super) async fn end_with<F: Future>(self, end: impl FnOnce(T) -> F) -> F::Output {
        end(self.value).await
    }
}

impl<T: Deref> Deref for Pooled<T> {
    type Target = T::Target;

    fn deref(&self) -> &T::Target {
        &self.value
    }
}

impl<T: DerefMut> DerefMut for Pooled<T> {
    fn deref_mut(&mut self) -> &mut T::Target {
        &mut self.value
    }
}

impl<DB: Database> Pooled<PoolConnection<DB>> {
    /// Closes the connection when it is dropped, instead of returning it to the pool.
    pub(super) fn close_on_drop(&mut self) {
        self.value.close_on_drop();
    }

    /// Returns the connection to the pool if the server responds within `limit`, and closes it
    /// otherwise. The pool itself waits for the response without a limit when a connection is dropped,
    /// and a server that has stopped responding would keep the connection's place.
    pub(super) fn return_within(&mut self, limit: Duration) -> impl Future<Output = ()> + use<DB> {
        let returned = self.value.return_to_pool();
        async move {
            let _ = with_patience(limit, returned).await;
        }
    }
}

/// Determines why no connection is available, by opening one outside of the pool: the pool
/// retries until its timeout, and then reports only the timeout.
struct ServerProbe {
    open: Probe,
    /// Permits one probe at a time. A probe is cancelled when the wait that started it ends.
    running: Semaphore,
    last: Mutex<Option<(Instant, ProbeResult)>>,
}

/// Function that opens a connection outside of the pool, as the pool opens its own.
pub(super) type Probe =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = sqlx::Result<()>> + Send>> + Send + Sync>;

/// Whether the server accepted another connection.
type ProbeResult = Result<(), Cause>;

impl<DB: Database> MeteredPool<DB> {
    /// Registers the pool's metrics under `name`. They are reported until this value is
    /// dropped.
    pub(super) fn new(name: &'static str, connections: sqlx::Pool<DB>) -> Self {
        let meter = instrumentation::meter();
        let name = KeyValue::new("db.client.connection.pool.name", name);
        let max = connections.options().get_max_connections() as usize;
        let connections = Arc::new(connections);
        observe_connections(&meter, &name, &connections);
        let timeouts = meter
            .u64_counter("db.client.connection.timeouts")
            .with_unit("{timeout}")
            .with_description("Waits for a connection that ended without one.")
            .build();
        instrumentation::export_zero(&timeouts, std::slice::from_ref(&name));
        Self {
            connections,
            shares: FairSemaphore::with_reserve(max, max / 8),
            name,
            wait_time: meter
                .f64_histogram("db.client.connection.wait_time")
                .with_unit("s")
                .with_description("The time it took to obtain an open connection from the pool.")
                .build(),
            timeouts,
            probe: None,
            has_alternatives: false,
            waits: AtomicU64::new(0),
        }
    }

    /// Opens further connections with other options.
    pub(super) fn set_connect_options(
        &self,
        options: <DB::Connection as sqlx::Connection>::Options,
    ) {
        self.connections.set_connect_options(options);
    }

    /// Probes the server while a call waits for longer than [`PROBE_AFTER`]. `has_alternatives` is
    /// whether the probe finds another server if this one accepts no connection: then it also runs
    /// after an error.
    pub(super) fn with_probe(self, open: Probe, has_alternatives: bool) -> Self {
        let probe = ServerProbe {
            open,
            running: Semaphore::new(1),
            last: Mutex::default(),
        };
        Self {
            probe: Some(probe),
            has_alternatives,
            ..self
        }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<Pooled<PoolConnection<DB>>, BackendError> {
        let _timer = self.wait_timer();
        let mut acquiring = pin!(self.wait(self.acquire_place()));
        let acquired = match timeout(PROBE_AFTER, &mut acquiring).await {
            Ok(acquired) => acquired,
            Err(_) => match select(acquiring, pin!(self.probe())).await {
                Either::Left((acquired, _)) => acquired,
                Either::Right(((), acquiring)) => acquiring.await,
            },
        };
        match self.count_timeout(acquired) {
            Err(sqlx::Error::PoolTimedOut) => Err(self.timeout_error()),
            acquired => Ok(acquired?),
        }
    }

    /// Waits for a connection, also while the server has no place for another one: other processes
    /// close theirs when they do not use them. An error leads to a search for another server.
    async fn acquire_place(&self) -> sqlx::Result<PoolConnection<DB>> {
        loop {
            match self.connections.acquire().await {
                Err(error) if has_too_many_connections(&error) => {
                    sleep(jitter::between(MIN_PLACE_INTERVAL, MAX_PLACE_INTERVAL)).await;
                }
                Err(error) if self.has_alternatives && !is_final(&error) => {
                    self.probe().await;
                    sleep(MIN_PLACE_INTERVAL).await;
                }
                acquired => return acquired,
            }
        }
    }

    /// Number of waits for a connection so far.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Whether a connection is open and not in use.
    pub(super) fn has_idle(&self) -> bool {
        self.connections.num_idle() > 0
    }

    /// Whether no further connection can be opened.
    pub(super) fn is_full(&self) -> bool {
        self.connections.size() >= self.connections.options().get_max_connections()
    }

    /// Closes the connections that are not in use.
    pub(super) async fn close_idle(&self) {
        while let Some(connection) = self.connections.try_acquire() {
            // It is closed even if this fails.
            let _ = connection.close().await;
        }
    }

    /// Waits for the caller's turn and then for `acquiring`, for the time limit of the pool in total.
    async fn wait<T>(
        &self,
        acquiring: impl Future<Output = sqlx::Result<T>>,
    ) -> sqlx::Result<Pooled<T>> {
        let waiting = async {
            let permits = self.shares.acquire(ShareKey::current()).await;
            let value = acquiring.await?;
            Ok(Pooled {
                value,
                _permits: permits,
            })
        };
        let limit = self.connections.options().get_acquire_timeout();
        let waited = timeout(limit, waiting).await;
        waited.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    async fn probe(&self) {
        let Some(probe) = &self.probe else {
            return;
        };
        let Ok(_permit) = probe.running.try_acquire() else {
            return;
        };
        if probe.recent_result().is_none() {
            let result = (probe.open)().await;
            probe.record(result.map_err(|error| BackendError::from(error).cause));
        }
    }

    /// Describes why a wait ended without a connection.
    fn timeout_error(&self) -> BackendError {
        let max = self.connections.options().get_max_connections();
        let busy = format!("timed out waiting for one of {max} connections");
        let text = match self.probe.as_ref().map(ServerProbe::recent_result) {
            None => busy,
            Some(None) => format!("{busy}; the server did not accept another in time"),
            Some(Some(Ok(()))) => format!("{busy}; the server accepts further connections"),
            Some(Some(Err(cause))) => format!("{busy}; the server accepts no other: {cause}"),
        };
        BackendError::new(ErrorKind::Unavailable, text)
    }

    /// Waits for a connection, and begins a transaction with `statement`. The wait time
    /// includes the time that the statement waits, for example for a lock.
    pub(super) async fn begin_with(
        &self,
        statement: &'static str,
    ) -> sqlx::Result<Pooled<Transaction<'static, DB>>> {
        let _timer = self.wait_timer();
        let beginning = self.connections.begin_with(statement);
        self.count_timeout(self.wait(beginning).await)
    }

    /// Closes all connections, after waiting for those that are in use.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }

    fn wait_timer(&self) -> WaitTimer<'_, DB> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        WaitTimer {
            pool: self,
            started: Instant::now(),
        }
    }

    fn count_timeout<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if let Err(sqlx::Error::PoolTimedOut) = outcome {
            self.timeouts.add(1, std::slice::from_ref(&self.name));
        }
        outcome
    }
}

impl ServerProbe {
    fn record(&self, result: ProbeResult) {
        *self.last() = Some((Instant::now(), result));
    }

    fn recent_result(&self) -> Option<ProbeResult> {
        let last = self.last();
        let (at, result) = last.as_ref()?;
        (at.elapsed() < PROBE_LIFETIME).then(|| result.clone())
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, ProbeResult)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> fmt::Debug for MeteredPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options of the connections contain a password.
        f.debug_tuple("MeteredPool")
            .field(&self.name.value)
            .finish()
    }
}

/// Timer of a wait for a connection. It records the wait when it is dropped, so that
/// waits of cancelled calls, the longest ones, count as well.
struct WaitTimer<'a, DB: Database> {
    pool: &'a MeteredPool<DB>,
    started: Instant,
}

impl<DB: Database> Drop for WaitTimer<'_, DB> {
    fn drop(&mut self) {
        let waited = self.started.elapsed().as_secs_f64();
        let name = std::slice::from_ref(&self.pool.name);
        self.pool.wait_time.record(waited, name);
    }
}

/// Whether no other attempt would be successful.
fn is_final(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}

fn has_too_many_connections(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some(TOO_MANY_CONNECTIONS)
}

fn observe_connections<DB: Database>(
    meter: &Meter,
    name: &KeyValue,
    connections: &Arc<sqlx::Pool<DB>>,
) {
    let with_state = |state: &'static str| {
        [
            name.clone(),
            KeyValue::new("db.client.connection.state", state),
        ]
    };
    let (idle, used) = (with_state("idle"), with_state("used"));
    meter
        .i64_observable_up_down_counter("db.client.connection.count")
        .with_unit("{connection}")
        .with_description("The number of connections in the state of the attribute.")
        .with_callback(observe(connections, move |pool, observer| {
            let num_idle = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
            observer.observe(num_idle, &idle);
            // The two numbers are not read at the same moment.
            observer.observe((i64::from(pool.size()) - num_idle).max(0), &used);
        }))
        .build();
    let name = [name.clone()];
    meter
        .i64_observable_up_down_counter("db.client.connection.max")
        .with_unit("{connection}")
        .with_description("The maximum number of open connections allowed.")
        .with_callback(observe(connections, move |pool, observer| {
            observer.observe(pool.options().get_max_connections().into(), &name);
        }))
        .build();
}

/// Returns a callback that reports on a pool until the pool is dropped.
fn observe<DB: Database>(
    connections: &Arc<sqlx::Pool<DB>>,
    report: impl Fn(&sqlx::Pool<DB>, &dyn AsyncInstrument<i64>) + Send + Sync + 'static,
) -> impl Fn(&dyn AsyncInstrument<i64>) + Send + Sync + 'static {
    let connections: Weak<sqlx::Pool<DB>> = Arc::downgrade(connections);
    move |observer| {
        if let Some(connections) = connections.upgrade() {
            report(&connections, observer);
        }
    }
}
