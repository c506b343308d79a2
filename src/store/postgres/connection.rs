//! Connections to PostgreSQL.

use std::{
    future::Future,
    mem,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, Postgres,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    hosts::{Acceptance, Hosts, accept_any},
    pooler::SettingsMode,
    responsiveness::{REPLY_LIMIT, Responsiveness, ServerSilent},
    server_state::ServerState,
    session_check::{SessionCheck, rejection},
    store_connection::{StoreConnection, look_up_types},
    transaction::end_with,
};
use crate::{
    patience::with_patience,
    store::{
        operation_error::{BackendError, ErrorKind, OperationError},
        pool,
        search_limit::SearchLimit,
    },
    text_analysis::Languages,
};

/// Maximum time that a call waits for a connection. A call that gets none fails within a
/// second, including the retry after a lost connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(900);

/// Maximum time that a call waits for the response to a test of its connection. Together with
/// [`ACQUIRE_TIMEOUT`], it ends before a call that waits for a server that does not respond.
const PING_TIMEOUT: Duration = Duration::from_millis(600);

/// Time within which a server must respond, so that a connection returns to the pool.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum time that the server executes a statement.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that the server executes a statement of a removal, and maximum time of all
/// statements of a removal before its COMMIT.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(35);

/// Idle time after which a connection is tested before it is used. A connection that was
/// used more recently is assumed to be alive, which saves a round trip.
const MAX_IDLE_UNCHECKED: Duration = Duration::from_secs(5);

/// Maximum time in which the server that accepts writes is looked for at the start.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time in which another standby is looked for.
const RELOCATE_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Time after which a connection that is not used is closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

/// Interval in which a pool on a crowded server must use a connection in order to keep its connections.
const CROWDED_INTERVAL: Duration = Duration::from_millis(500);

/// Adds the options with which every connection is opened.
pub(super) fn options(options: PgConnectOptions) -> PgConnectOptions {
    let named = options.get_application_name().is_some();
    let options = if named {
        options
    } else {
        options.application_name("conversation-memory")
    };
    options.disable_statement_logging()
}

/// Time limits of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    /// Maximum time that a call waits for a connection.
    acquire: Duration,
    /// Time within which a server that runs replies to a new connection.
    reply: Duration,
}

impl PoolLimits {
    pub(super) const PRIMARY: Self = Self {
        acquire: ACQUIRE_TIMEOUT,
        reply: REPLY_LIMIT,
    };

    /// Standbys can be far away. Their reads limit the waits themselves.
    pub(super) const REPLICA: Self = Self {
        acquire: Duration::from_secs(4),
        reply: Duration::from_millis(1_500),
    };
}

/// Pool of connections, with what they have observed of the server.
pub(super) struct PostgresPool {
    connections: Arc<pool::MeteredPool<Postgres>>,
    /// Task that closes idle connections. It ends with this value.
    _idle: JoinSet<()>,
    /// Tasks that return connections. The pool waits for their connections when it is closed.
    returns: TaskTracker,
    check: Arc<SessionCheck>,
    hosts: Arc<Hosts>,
    pub(super) server: Arc<ServerState>,
    /// Languages in which messages are analyzed for the search.
    pub(super) languages: Languages,
    pub(super) searches: SearchLimit,
    responsiveness: Arc<Responsiveness>,
    waits_at_last_look: AtomicU64,
}

impl PostgresPool {
    /// Creates a pool that opens connections when they are first needed, and checks each. `name` is its
    /// name in metrics.
    pub(super) fn new(
        name: &'static str,
        hosts: Arc<Hosts>,
        max_connections: u32,
        limits: PoolLimits,
        check: Arc<SessionCheck>,
        server: Arc<ServerState>,
        languages: Languages,
    ) -> Self {
        let observed = Arc::clone(&server);
        let new = Arc::clone(&check);
        let connections = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(limits.acquire)
            .idle_timeout(IDLE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let check = Arc::clone(&new);
                Box::pin(async move {
                    check.check(connection).await?;
                    match check.mode() {
                        SettingsMode::Transaction => look_up_types(connection).await,
                        SettingsMode::Startup | SettingsMode::Session => Ok(()),
                    }
                })
            })
            .before_acquire(move |connection, metadata| {
                let idle_for = metadata.idle_for;
                let is_usable = observed.is_usable(metadata.age);
                let needs_test =
                    idle_for > MAX_IDLE_UNCHECKED || observed.has_lost_connection_within(idle_for);
                Box::pin(async move {
                    if is_usable && needs_test {
                        connection.ping().await?;
                    }
                    Ok(is_usable)
                })
            })
            .connect_lazy_with(check.connect_options(hosts.current()));
        let probe = probe(Arc::clone(&hosts), Arc::clone(&check), connections.clone());
        let connections = pool::MeteredPool::new(name, connections)
            .with_probe(Arc::clone(&probe), hosts.are_several());
        let connections = Arc::new(connections);
        let mut idle = JoinSet::new();
        idle.spawn(close_idle(
            Arc::downgrade(&connections),
            Arc::clone(&server),
        ));
        Self {
            _idle: idle,
            returns: TaskTracker::new(),
            check,
            hosts,
            connections,
            server,
            languages,
            searches: SearchLimit::new((max_connections as usize / 5).max(1), STATEMENT_TIMEOUT),
            responsiveness: Arc::new(Responsiveness::new(probe, limits.reply)),
            waits_at_last_look: AtomicU64::new(0),
        }
    }

    /// Uses the server that accepts writes. If none does, the next connections report why.
    pub(super) async fn locate(&self) {
        if self.hosts.are_several() {
            let located = self.hosts.locate(&self.check, &accept_any);
            let _: Result<_, _> = timeout(LOCATE_TIMEOUT, located).await;
        }
    }

    /// Uses a server that `accept` accepts. Returns whether it is another one than before.
    pub(super) async fn locate_with(&self, accept: &Acceptance<'_>) -> bool {
        if !self.hosts.are_several() {
            return false;
        }
        let located = self.hosts.locate(&self.check, accept);
        matches!(timeout(RELOCATE_TIMEOUT, located).await, Ok(Ok(true)))
    }

    /// Whether there is a choice of servers.
    pub(super) fn has_several_hosts(&self) -> bool {
        self.hosts.are_several()
    }

    /// Whether a connection is open and not in use.
    pub(super) fn has_idle_connection(&self) -> bool {
        self.connections.has_idle()
    }

    /// Whether no further connection can be opened.
    pub(super) fn is_full(&self) -> bool {
        self.connections.is_full()
    }

    /// Options of connections to the server that is used, which do not depend on their mode.
    pub(super) fn options(&self) -> &PgConnectOptions {
        self.hosts.current()
    }

    /// Opens further connections in the present mode of the connections.
    pub(super) fn update_options(&self) {
        let options = self.check.connect_options(self.options());
        self.connections.set_connect_options(options);
    }

    /// Whether the connections lead to a pooler that assigns a server to each transaction.
    pub(super) fn is_pooled(&self) -> bool {
        self.check.mode() == SettingsMode::Transaction
    }

    /// Check that begins the transactions; `None` if sessions keep their settings.
    fn pooled_check(&self) -> Option<Arc<SessionCheck>> {
        self.is_pooled().then(|| Arc::clone(&self.check))
    }

    /// Records whether the server has many connections. Those of a pooler are not the server's.
    pub(super) fn record_crowding(&self, is_crowded: bool) {
        self.server.record_crowding(is_crowded && !self.is_pooled());
    }

    /// Returns whether the connection of a look at the store that recurs must be closed afterwards: the
    /// server is crowded, and nothing else has waited for a connection since the last look. The looks
    /// of many idle processes would occupy all connections otherwise.
    pub(super) fn leaves_place(&self) -> bool {
        let waits = self.connections.waits();
        let before = self.waits_at_last_look.swap(waits, Ordering::Relaxed);
        self.server.is_crowded() && waits <= before + 1
    }

    /// Begins a wait for the server.
    pub(super) fn wait(&self) -> Wait {
        Wait {
            responsiveness: Arc::clone(&self.responsiveness),
            started: Instant::now(),
        }
    }

    /// Closes all connections, after waiting for those that are in use.
    pub(super) async fn close(&self) {
        self.connections.close().await;
    }
}

/// Closes connections that are not used while the server is crowded: it may have no place for those of
/// another sidecar.
async fn close_idle(connections: Weak<pool::MeteredPool<Postgres>>, server: Arc<ServerState>) {
    let mut waits = 0;
    loop {
        sleep(CROWDED_INTERVAL).await;
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let before = mem::replace(&mut waits, connections.waits());
        if before == waits && server.is_crowded() {
            connections.close_idle().await;
        }
    }
}

/// Returns a function that opens and checks a connection outside of the pool. A pooler of the primary that
/// accepts a connection has responded: all its servers can be in use. If another server than before accepts
/// writes, further connections of the pool lead to it.
fn probe(hosts: Arc<Hosts>, check: Arc<SessionCheck>, pool: sqlx::PgPool) -> pool::Probe {
    Arc::new(move || {
        let (hosts, check, pool) = (Arc::clone(&hosts), Arc::clone(&check), pool.clone());
        Box::pin(async move {
            if hosts.are_several() {
                if !hosts.locate(&check, &accept_any).await? {
                    return Ok(());
                }
                pool.set_connect_options(check.connect_options(hosts.current()));
                // What waits for the former server waits in vain.
                return Err(rejection("another server is used now"));
            }
            let mut connection = check.connect_options(hosts.current()).connect().await?;
            // A standby behind a pooler whose servers are all in use is not worth the wait.
            if check.mode() == SettingsMode::Startup || check.is_of_standbys() {
                check.check(&mut connection).await?;
            }
            Ok(())
        })
    })
}

/// Wait of a call for the server, which ends if the server stops responding.
pub(super) struct Wait {
    responsiveness: Arc<Responsiveness>,
    /// When the call began to wait.
    started: Instant,
}

impl Wait {
    /// Waits for the outcome of statements. See [`Responsiveness::watch`].
    pub(super) async fn for_outcome<T>(
        &self,
        statements: impl Future<Output = T>,
    ) -> Result<T, ServerSilent> {
        self.responsiveness.watch(self.started, statements).await
    }

    /// Waits for statements that are not committed, for at most `limit`. `exceeded` is the cause of
    /// the error if they take longer.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        exceeded: &'static str,
        statements: impl Future<Output = Result<T, OperationError>>,
    ) -> Result<T, OperationError> {
        let interrupted = match timeout(limit, self.for_outcome(statements)).await {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(silent)) => silent.into_error(ErrorKind::Interrupted),
            Err(_) => BackendError::new(ErrorKind::Interrupted, exceeded),
        };
        Err(interrupted.into())
    }
}

/// Pooled connection that returns to the pool only if its last response was read
/// completely. Otherwise it is closed when it is dropped: a cancelled call can leave it in
/// a transaction, or waiting for a server that has failed.
pub(super) struct PooledConnection {
    connection: StoreConnection,
    responsiveness: Arc<Responsiveness>,
    /// When the wait for the connection began.
    requested: Instant,
    is_reusable: bool,
    returns: TaskTracker,
}

impl PooledConnection {
    /// Waits for a connection. Nothing has been sent if there is none.
    pub(super) async fn acquire(pool: &PostgresPool) -> Result<Self, BackendError> {
        let Wait {
            responsiveness,
            started: requested,
        } = pool.wait();
        match pool.connections.acquire().await {
            Ok(connection) => Ok(Self {
                connection: StoreConnection::new(connection, pool.pooled_check()),
                responsiveness,
                requested,
                is_reusable: false,
                returns: pool.returns.clone(),
            }),
            Err(BackendError { cause, .. }) => Err(BackendError {
                kind: ErrorKind::Unavailable,
                cause,
            }),
        }
    }

    /// Waits for a connection that has just responded, for writes whose outcome cannot be
    /// determined if the connection is lost. A statement that is sent on a connection that the
    /// server has already closed is not executed, but the client cannot detect that.
    pub(super) async fn acquire_tested(pool: &PostgresPool) -> Result<Self, BackendError> {
        let mut acquired = Self::acquire(pool).await?;
        acquired.test(&pool.server).await?;
        Ok(acquired)
    }

    /// Tests whether the connection responds. It must not be used after an error. A server of a pooler
    /// has responded when its transaction has begun.
    pub(super) async fn test(&mut self, server: &ServerState) -> Result<(), BackendError> {
        let connection = &mut self.connection;
        if connection.is_pooled() {
            return connection.begin_if_pooled().await.map_err(|error| {
                let error = BackendError::from(error);
                if error.kind == ErrorKind::ConnectionLost {
                    server.record_loss();
                }
                error.replace_connection_lost(ErrorKind::Retryable)
            });
        }
        let ping = connection.driver().ping();
        let (kind, cause) = match with_patience(PING_TIMEOUT, ping).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => (ErrorKind::Retryable, "the server had closed the connection"),
            Err(_) => (ErrorKind::Unavailable, "the server does not respond"),
        };
        server.record_loss();
        Err(BackendError::new(kind, cause))
    }

    /// Begins another call, which uses this connection from the beginning.
    pub(super) fn begin_wait(&mut self) -> Wait {
        self.requested = Instant::now();
        self.wait()
    }

    /// Continues the wait of the call that uses this connection.
    pub(super) fn wait(&self) -> Wait {
        Wait {
            responsiveness: Arc::clone(&self.responsiveness),
            started: self.requested,
        }
    }

    /// Ends an operation in autocommit mode, and returns the connection to the pool, unless its state
    /// is unknown after the outcome of its last statement.
    pub(super) async fn release<T>(
        self,
        outcome: Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        self.release_with(outcome, String::new).await
    }

    /// Ends an operation like [`Self::release`]. Its transaction on a server of a pooler executes
    /// `last` together with the COMMIT.
    pub(super) async fn release_with<T>(
        self,
        outcome: Result<T, OperationError>,
        last: impl FnOnce() -> String,
    ) -> Result<T, OperationError> {
        if !self.connection.has_pooled_transaction() {
            return self.reuse(outcome);
        }
        // Nothing is committed before the COMMIT.
        if is_lost(&outcome) {
            self.connection.record_loss();
        }
        let outcome = outcome.map_err(|e| e.replace_connection_lost(ErrorKind::Retryable));
        end_with(self, outcome, &last()).await
    }

    /// Returns the connection to the pool after the outcome of a transaction. See [`Self::release`].
    pub(super) fn reuse<T>(
        mut self,
        outcome: Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        self.is_reusable = !matches!(
            kind,
            Some(ErrorKind::ConnectionLost | ErrorKind::Interrupted | ErrorKind::Internal)
        );
        outcome
    }
}

fn is_lost<T>(outcome: &Result<T, OperationError>) -> bool {
    let error = outcome.as_ref().err();
    error.and_then(OperationError::kind) == Some(ErrorKind::ConnectionLost)
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let connection = self.connection.driver();
        if self.is_reusable {
            self.returns.spawn(connection.return_within(RETURN_TIMEOUT));
        } else {
            connection.close_on_drop();
        }
    }
}

impl Deref for PooledConnection {
    type Target = StoreConnection;

    fn deref(&self) -> &StoreConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut StoreConnection {
        &mut self.connection
    }
}
