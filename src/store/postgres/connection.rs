//! Connections to PostgreSQL.

use std::{
    future::Future,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, PgConnection, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{Instant, timeout};

use super::{
    responsiveness::{Responsiveness, ServerSilent},
    server_state::ServerState,
    session_check::{self, SessionCheck},
};
use crate::{
    patience::with_patience,
    store::{
        operation_error::{BackendError, ErrorKind, OperationError},
        pool,
        pool::Pooled,
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

/// Maximum time that the server executes a statement.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that the server executes a statement of a removal, and maximum time of all
/// statements of a removal before its COMMIT.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(35);

/// Idle time after which a connection is tested before it is used. A connection that was
/// used more recently is assumed to be alive, which saves a round trip.
const MAX_IDLE_UNCHECKED: Duration = Duration::from_secs(5);

/// Adds the options with which every connection is opened.
pub(super) fn options(options: PgConnectOptions) -> PgConnectOptions {
    let named = options.get_application_name().is_some();
    let options = if named {
        options
    } else {
        options.application_name("conversation-memory")
    };
    options
        .disable_statement_logging()
        .options(session_check::settings())
}

/// Pool of connections, with what they have observed of the server.
pub(super) struct PostgresPool {
    connections: pool::MeteredPool<Postgres>,
    pub(super) server: Arc<ServerState>,
    /// Languages in which messages are analyzed for the search.
    pub(super) languages: Languages,
    pub(super) searches: SearchLimit,
    responsiveness: Arc<Responsiveness>,
}

impl PostgresPool {
    /// Creates a pool that opens connections when they are first needed, and checks each.
    pub(super) fn new(
        options: PgConnectOptions,
        max_connections: u32,
        check: Arc<SessionCheck>,
        server: Arc<ServerState>,
        languages: Languages,
    ) -> Self {
        let probe = probe(options.clone(), Arc::clone(&check));
        let observed = Arc::clone(&server);
        let connections = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let check = Arc::clone(&check);
                Box::pin(async move { check.check(connection).await.map(drop) })
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
            .connect_lazy_with(options);
        Self {
            connections: pool::MeteredPool::new("postgresql", connections)
                .with_probe(Arc::clone(&probe)),
            server,
            languages,
            searches: SearchLimit::new((max_connections as usize / 5).max(1), STATEMENT_TIMEOUT),
            responsiveness: Arc::new(Responsiveness::new(probe)),
        }
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

/// Returns a function that opens and checks a connection outside of the pool.
fn probe(options: PgConnectOptions, check: Arc<SessionCheck>) -> pool::Probe {
    Arc::new(move || {
        let (options, check) = (options.clone(), Arc::clone(&check));
        Box::pin(async move {
            let mut connection = options.connect().await?;
            check.check(&mut connection).await.map(drop)
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
    connection: Pooled<PoolConnection<Postgres>>,
    responsiveness: Arc<Responsiveness>,
    /// When the wait for the connection began.
    requested: Instant,
    is_reusable: bool,
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
                connection,
                responsiveness,
                requested,
                is_reusable: false,
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

    /// Tests whether the connection responds. It must not be used after an error.
    pub(super) async fn test(&mut self, server: &ServerState) -> Result<(), BackendError> {
        let (kind, cause) = match with_patience(PING_TIMEOUT, self.connection.ping()).await {
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

    /// Returns the connection to the pool, unless its state is unknown after the outcome of its
    /// last statement.
    pub(super) fn release<T>(
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

impl Drop for PooledConnection {
    fn drop(&mut self) {
        if !self.is_reusable {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}
