use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Counter, Histogram, Meter},
};
use sqlx::{ConnectOptions as _, Database, Transaction, pool::PoolConnection};
use tokio::{sync::Semaphore, time::timeout};

use super::failure::{Cause, ErrorKind, Failure};
use crate::instrumentation;

/// How long a wait for a connection is no matter of asking why.
const PROMPT: Duration = Duration::from_millis(300);

/// How long an answer to that is of use.
const FRESH: Duration = Duration::from_secs(2);

/// A pool of connections that tells operators how much of it is used, and how
/// long calls wait for it.
pub(super) struct Pool<DB: Database> {
    connections: Arc<sqlx::Pool<DB>>,
    name: KeyValue,
    wait_time: Histogram<f64>,
    timeouts: Counter<u64>,
    server: Option<Server>,
}

/// Asks a server itself why there is no connection, by trying to make one beside the
/// pool's: the pool tries until its time is up, and then says only that it is.
#[derive(Debug)]
struct Server {
    /// One question at a time. A wait that is over drops its own unanswered.
    asking: Semaphore,
    answer: Mutex<Option<(Instant, Answer)>>,
}

/// Whether the server gave another connection.
type Answer = Result<(), Cause>;

impl<DB: Database> Pool<DB> {
    /// Makes the instruments, which know the pool by this name. They show it for
    /// as long as this value lives.
    pub(super) fn new(name: &'static str, connections: sqlx::Pool<DB>) -> Self {
        let meter = instrumentation::meter();
        let name = KeyValue::new("db.client.connection.pool.name", name);
        let connections = Arc::new(connections);
        observe_connections(&meter, &name, &connections);
        Self {
            connections,
            name,
            wait_time: meter
                .f64_histogram("db.client.connection.wait_time")
                .with_unit("s")
                .with_description("The time it took to obtain an open connection from the pool.")
                .build(),
            timeouts: meter
                .u64_counter("db.client.connection.timeouts")
                .with_unit("{timeout}")
                .with_description("Waits for a connection that ended without one.")
                .build(),
            server: None,
        }
    }

    /// Has the server asked when a wait is long.
    pub(super) fn asking(self) -> Self {
        let server = Server {
            asking: Semaphore::new(1),
            answer: Mutex::default(),
        };
        Self {
            server: Some(server),
            ..self
        }
    }

    /// Waits for a connection.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<DB>, Failure> {
        let _wait = self.wait();
        let mut acquiring = pin!(self.connections.acquire());
        let acquired = match timeout(PROMPT, &mut acquiring).await {
            Ok(acquired) => acquired,
            Err(_) => match select(acquiring, pin!(self.ask())).await {
                Either::Left((acquired, _)) => acquired,
                Either::Right(((), acquiring)) => acquiring.await,
            },
        };
        match self.note(acquired) {
            Err(sqlx::Error::PoolTimedOut) => Err(self.why()),
            acquired => Ok(acquired?),
        }
    }

    async fn ask(&self) {
        let Some(server) = &self.server else {
            return;
        };
        let Ok(_turn) = server.asking.try_acquire() else {
            return;
        };
        if server.newest().is_none() {
            let connected = self.connections.connect_options().connect().await;
            let answer = connected.map(drop);
            server.note(answer.map_err(|error| Failure::from(error).cause));
        }
    }

    /// Why a wait ended without a connection.
    fn why(&self) -> Failure {
        let max = self.connections.options().get_max_connections();
        let taken = format!("no connection of {max} came free in time");
        let words = match self.server.as_ref().map(Server::newest) {
            None => taken,
            Some(None) => format!("{taken}, and the server gave no other"),
            Some(Some(Ok(()))) => format!("{taken}, but the server gives others"),
            Some(Some(Err(cause))) => format!("{taken}, and the server gives no other: {cause}"),
        };
        Failure::new(ErrorKind::Unavailable, words)
    }

    /// Waits for a connection, and begins a transaction with this statement. What
    /// the statement waits for, a lock say, counts as waiting too.
    pub(super) async fn begin_with(
        &self,
        statement: &'static str,
    ) -> sqlx::Result<Transaction<'static, DB>> {
        let _wait = self.wait();
        self.note(self.connections.begin_with(statement).await)
    }

    /// Closes all connections, and waits for those that are in use.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }

    fn wait(&self) -> Wait<'_, DB> {
        Wait {
            pool: self,
            started: Instant::now(),
        }
    }

    fn note<T>(&self, outcome: sqlx::Result<T>) -> sqlx::Result<T> {
        if let Err(sqlx::Error::PoolTimedOut) = outcome {
            self.timeouts.add(1, std::slice::from_ref(&self.name));
        }
        outcome
    }
}

impl Server {
    fn note(&self, answer: Answer) {
        *self.answer() = Some((Instant::now(), answer));
    }

    fn newest(&self) -> Option<Answer> {
        let answer = self.answer();
        let (at, answer) = answer.as_ref()?;
        (at.elapsed() < FRESH).then(|| answer.clone())
    }

    fn answer(&self) -> MutexGuard<'_, Option<(Instant, Answer)>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: Database> fmt::Debug for Pool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options of the connections hold a password.
        f.debug_tuple("Pool").field(&self.name.value).finish()
    }
}

/// A wait for a connection. However it ends it is recorded, also when its caller
/// has gone: these are the longest.
struct Wait<'a, DB: Database> {
    pool: &'a Pool<DB>,
    started: Instant,
}

impl<DB: Database> Drop for Wait<'_, DB> {
    fn drop(&mut self) {
        let waited = self.started.elapsed().as_secs_f64();
        let name = std::slice::from_ref(&self.pool.name);
        self.pool.wait_time.record(waited, name);
    }
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
        .with_description("Connections that are in the state that the attribute says.")
        .with_callback(observe(connections, move |pool, observer| {
            let waiting = i64::try_from(pool.num_idle()).unwrap_or(i64::MAX);
            observer.observe(waiting, &idle);
            // The two numbers are not read at once.
            observer.observe((i64::from(pool.size()) - waiting).max(0), &used);
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

/// A callback that looks at a pool while there is one.
fn observe<DB: Database>(
    connections: &Arc<sqlx::Pool<DB>>,
    show: impl Fn(&sqlx::Pool<DB>, &dyn AsyncInstrument<i64>) + Send + Sync + 'static,
) -> impl Fn(&dyn AsyncInstrument<i64>) + Send + Sync + 'static {
    let connections: Weak<sqlx::Pool<DB>> = Arc::downgrade(connections);
    move |observer| {
        if let Some(connections) = connections.upgrade() {
            show(&connections, observer);
        }
    }
}
