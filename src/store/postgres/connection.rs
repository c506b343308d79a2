//! How PostgreSQL is connected to.

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

use super::Pool;
use crate::{
    domain::TextSearch,
    store::failure::{ErrorKind, Failure, OperationError},
};

/// How long a call waits for a connection. Callers are promised an answer within
/// a second, which also has to hold a lost connection that is tried again.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(900);

/// How long the server works on a statement.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for a removal's statements, and for all of a removal before its
/// commit.
pub(super) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(35);

/// A connection that rested longer than this is tested before it is used. One
/// that was used just now is taken to be alive, which saves a round trip.
const MAX_IDLE_UNCHECKED: Duration = Duration::from_secs(5);

/// When a connection was last lost. What one met, a restart say, the others have
/// met as well: whichever rested since then is tested before it is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses(Arc<Mutex<Option<Instant>>>);

impl Losses {
    /// A connection was lost just now.
    pub(super) fn note(&self) {
        *self.last() = Some(Instant::now());
    }

    fn since(&self, rested: Duration) -> bool {
        self.last().is_some_and(|lost| lost.elapsed() <= rested)
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every connection is opened with.
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
        // Every query here is meant to walk an index. A plan made from stale
        // statistics must not read a whole table or a whole conversation instead.
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("jit", "off".to_owned()),
        // Nor is there anything to gain from a plan for particular values, which
        // for a short read takes the server longer to make than to carry out.
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        // The triggers of migration 3 read it.
        (
            "conversation_memory.text_search_config",
            text_search.as_str().to_owned(),
        ),
        // Notices, of words too long to be searched, say nothing to anybody.
        ("client_min_messages", "warning".to_owned()),
    ])
}

/// A pool that connects when it is first asked to.
pub(super) fn pool(options: PgConnectOptions, max_connections: u32, losses: Losses) -> Pool {
    let connections = PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(check_options(connection)))
        .before_acquire(move |connection, about| {
            let doubtful = about.idle_for > MAX_IDLE_UNCHECKED || losses.since(about.idle_for);
            Box::pin(async move {
                if doubtful {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    Pool::new("postgresql", connections).asking()
}

/// Refuses a connection on which the options of [`options`] did not arrive. A
/// pooler that gives each transaction another server does not pass them on, and
/// would mix up the answers of its clients, since statements are prepared here.
pub(super) async fn check_options(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = raw_sql("SELECT current_setting('enable_seqscan')")
        .fetch_one(connection)
        .await?;
    if row.try_get::<&str, _>(0)? == "off" {
        Ok(())
    } else {
        Err(sqlx::Error::Configuration(
            "a pooler in between drops the connection's options: connect to PostgreSQL itself"
                .into(),
        ))
    }
}

/// A pooled connection that goes back only when its last answer was read to the
/// end. Otherwise it is closed: a call that is dropped halfway can leave it in a
/// transaction, or waiting for a server that has gone.
pub(super) struct Lease {
    connection: PoolConnection<Postgres>,
    settled: bool,
}

impl Lease {
    /// Waits for a connection. Nothing was sent when there is none.
    pub(super) async fn take(pool: &Pool) -> Result<Self, OperationError> {
        match pool.acquire().await {
            Ok(connection) => Ok(Self {
                connection,
                settled: false,
            }),
            Err(Failure { cause, .. }) => Err(Failure {
                class: ErrorKind::Unavailable,
                cause,
            }
            .into()),
        }
    }

    /// The same, and the connection has just answered: for what cannot be found
    /// again if it is lost. A statement that is sent over a connection that the
    /// server has closed meanwhile was not carried out, but nobody could tell.
    pub(super) async fn take_tested(pool: &Pool, losses: &Losses) -> Result<Self, OperationError> {
        let mut lease = Self::take(pool).await?;
        let pinged = timeout(ACQUIRE_TIMEOUT, lease.connection.ping()).await;
        if matches!(pinged, Ok(Ok(()))) {
            return Ok(lease);
        }
        losses.note();
        Err(Failure::new(ErrorKind::Retry, "a connection had been closed").into())
    }

    /// Gives the connection back, unless what came of it casts doubt on it.
    pub(super) fn release<T>(
        mut self,
        outcome: Result<T, OperationError>,
    ) -> Result<T, OperationError> {
        let class = outcome.as_ref().err().and_then(OperationError::class);
        self.settled = !matches!(class, Some(ErrorKind::Lost | ErrorKind::Internal));
        outcome
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
