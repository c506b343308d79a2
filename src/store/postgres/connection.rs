//! Connections to PostgreSQL.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, PgConnection, Postgres, Row,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    raw_sql,
};
use tokio::time::timeout;

use super::PostgresPool;
use crate::{
    domain::TextSearch,
    store::operation_error::{BackendError, ErrorKind, OperationError},
};

/// Maximum time that a call waits for a connection. A call that gets none fails within a
/// second, including the retry after a lost connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(900);

/// Maximum time that the server executes a statement.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum time that the server executes a statement of a removal, and maximum time of all
/// statements of a removal before its COMMIT.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(35);

/// Idle time after which a connection is tested before it is used. A connection that was
/// used more recently is assumed to be alive, which saves a round trip.
const MAX_IDLE_UNCHECKED: Duration = Duration::from_secs(5);

/// Time at which a connection was last lost. The cause, a restart for example, affects all
/// connections: those that have been idle since then are tested before they are used.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionLosses(Arc<Mutex<Option<Instant>>>);

impl ConnectionLosses {
    /// Records that a connection was lost now.
    pub(super) fn record(&self) {
        *self.last() = Some(Instant::now());
    }

    fn occurred_within(&self, duration: Duration) -> bool {
        self.last().is_some_and(|lost| lost.elapsed() <= duration)
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds the options with which every connection is opened.
pub(super) fn options(options: PgConnectOptions, text_search: TextSearch) -> PgConnectOptions {
    let named = options.get_application_name().is_some();
    let options = if named {
        options
    } else {
        options.application_name("conversation-memory")
    };
    options.disable_statement_logging().options([
        ("statement_timeout", millis(STATEMENT_TIMEOUT)),
        (
            "idle_in_transaction_session_timeout",
            millis(STATEMENT_TIMEOUT),
        ),
        // Every query reads an index in order. A plan that was created from stale statistics
        // must not read a whole table or a whole conversation instead.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("jit", "off".to_owned()),
        // A plan for particular values is no better here, and for a short read the
        // server would spend more time on planning than on execution.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        // Read by the triggers of migration 3.
        (
            "conversation_memory.text_search_config",
            text_search.as_str().to_owned(),
        ),
        // Suppresses the notices about words that are too long for the index.
        ("client_min_messages", "warning".to_owned()),
    ])
}

/// Creates a pool that opens connections when they are first needed.
pub(super) fn pool(
    options: PgConnectOptions,
    max_connections: u32,
    losses: ConnectionLosses,
) -> PostgresPool {
    let connections = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(check_options(connection)))
        .before_acquire(move |connection, metadata| {
            let idle_for = metadata.idle_for;
            let needs_test = idle_for > MAX_IDLE_UNCHECKED || losses.occurred_within(idle_for);
            Box::pin(async move {
                if needs_test {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    PostgresPool::new("postgresql", connections).with_probe()
}

/// Rejects a connection that did not receive the options of [`options`]. A pooler that
/// assigns a server for each transaction does not forward them, and would confuse the
/// responses to prepared statements of different clients.
///
/// # Errors
///
/// Fails if the connection was lost, or the options are missing.
pub(super) async fn check_options(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = raw_sql("SELECT current_setting('enable_seqscan')")
        .fetch_one(connection)
        .await?;
    if row.try_get::<&str, _>(0)? == "off" {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(
            "a pooler drops the options of the connection: connect to PostgreSQL directly".into(),
        ))
    }
}

/// Pooled connection that returns to the pool only if its last response was read
/// completely. Otherwise it is closed when it is dropped: a cancelled call can leave it in
/// a transaction, or waiting for a server that has failed.
pub(super) struct PooledConnection {
    connection: PoolConnection<Postgres>,
    is_reusable: bool,
}

impl PooledConnection {
    /// Waits for a connection. Nothing has been sent if there is none.
    pub(super) async fn acquire(pool: &PostgresPool) -> Result<Self, OperationError> {
        match pool.acquire().await {
            Ok(connection) => Ok(Self {
                connection,
                is_reusable: false,
            }),
            Err(BackendError { cause, .. }) => Err(BackendError {
                kind: ErrorKind::Unavailable,
                cause,
            }
            .into()),
        }
    }

    /// Waits for a connection that has just responded, for writes whose outcome cannot be
    /// determined if the connection is lost. A statement that is sent on a connection that the
    /// server has already closed is not executed, but the client cannot detect that.
    pub(super) async fn acquire_tested(
        pool: &PostgresPool,
        losses: &ConnectionLosses,
    ) -> Result<Self, OperationError> {
        let mut acquired = Self::acquire(pool).await?;
        let pinged = timeout(ACQUIRE_TIMEOUT, acquired.connection.ping()).await;
        if matches!(pinged, Ok(Ok(()))) {
            return Ok(acquired);
        }
        losses.record();
        let cause = "the server had closed the connection";
        Err(BackendError::new(ErrorKind::Retryable, cause).into())
    }

    /// Returns the connection to the pool, unless its state is unknown after the outcome of its
    /// last statement.
    pub(super) fn release<T>(
        mut self,
        outcome: Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        let kind = outcome.as_ref().err().and_then(OperationError::kind);
        self.is_reusable = !matches!(kind, Some(ErrorKind::ConnectionLost | ErrorKind::Internal));
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

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
