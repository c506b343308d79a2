use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::future::{Either, select};

use opentelemetry::{
    KeyValue, global,
    metrics::{AsyncInstrument, Counter, Histogram, Meter},
};
use sqlx::{ConnectOptions as _, Database, Transaction, pool::PoolConnection};
use tokio::time::timeout;

use super::failure::{Cause, Class, Failure};

/// How long a wait for a connection is no matter of asking why.
const PROMPT: Duration = Duration::from_millis(300);

/// How long an answer to that holds.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A pool of connections that tells operators how much of it is used, and how
/// long calls wait for it.
pub(super) struct Pool<DB: Database> {
    connections: Arc<sqlx::Pool<DB>>,
    name: KeyValue,
    wait_time: Histogram<f64>,
    timeouts: Counter<u64>,
    obstacle: Option<Mutex<Obstacle>>,
}

/// What the server answered when it was last asked for a connection beside the pool's.
#[derive(Debug, Default)]
struct Obstacle {
    asked: Option<Instant>,
    answer: Option<Result<(), Cause>>,
}

impl<DB: Database> Pool<DB> {
    /// Makes the instruments, which know the pool by this name. They show it for
    /// as long as this value lives.
    pub(super) fn new(name: &'static str, connections: sqlx::Pool<DB>) -> Self {
        let meter = global::meter("conversation_memory");
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
            obstacle: None,
        }
    }

    /// Asks a server itself why there is no connection, by trying to make another one: the
    /// pool tries until its time is up, and then says only that it is.
    pub(super) fn asking(self) -> Self {
        Self {
            obstacle: Some(Mutex::default()),
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
        let Some(obstacle) = &self.obstacle else {
            return;
        };
        if !lock(obstacle).is_due() {
            return;
        }
        let answer = self.connections.connect_options().connect().await;
        let answer = answer.map(drop).map_err(|error| Failure::from(error).cause);
        lock(obstacle).answer = Some(answer);
    }

    /// Why a wait ended without a connection.
    fn why(&self) -> Failure {
        let obstacle = self.obstacle.as_ref().map(lock);
        let words = match obstacle.as_ref().map(|obstacle| &obstacle.answer) {
            None | Some(Some(Ok(()))) => {
                let max = self.connections.options().get_max_connections();
                format!("all {max} connections were in use")
            }
            Some(Some(Err(cause))) => format!("no connection could be made: {cause}"),
            Some(None) => "the server gave no connection in time".to_owned(),
        };
        Failure::new(Class::Unavailable, words)
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

impl Obstacle {
    /// Whether to ask now. An older answer is forgotten then.
    fn is_due(&mut self) -> bool {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return false;
        }
        *self = Self {
            asked: Some(Instant::now()),
            answer: None,
        };
        true
    }
}

fn lock(obstacle: &Mutex<Obstacle>) -> MutexGuard<'_, Obstacle> {
    obstacle.lock().unwrap_or_else(PoisonError::into_inner)
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
