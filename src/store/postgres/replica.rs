//! Replica for reads that may lag.
//!
//! A read may use the replica if that has reached a position of the primary's write-ahead log that
//! was read at most [`ReplicaSettings::max_lag`] before. So the read shows everything that was
//! acknowledged before that time, whatever the clocks of the servers show and however long nothing
//! was written. Each read compares the position and the history of the very connection that it uses, which
//! may lead to any of several replicas. Everything else is read from the primary.

mod comparison;
mod import;
mod instruments;
mod opener;
mod positions;
mod reads;
mod recent_writes;
mod server;
mod snapshot;
mod state;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::query_as;

pub(super) use self::import::record as record_import;
use self::{
    comparison::Comparison,
    instruments::{Instruments, Outcome},
    opener::Opener,
    recent_writes::RecentWrites,
    server::{APPLIED, Applied, Refusal, Required},
};
use super::{
    connection::{PooledConnection, PostgresPool, STATEMENT_TIMEOUT},
    session_check::SessionCheck,
    store_connection::StoreConnection,
};
use crate::{
    domain::{ConversationId, UserId},
    patience::with_patience,
    store::{
        MinState, StoreError,
        operation_error::{BackendError, Cause, ErrorKind, OperationError},
        transfers::TransferLimit,
    },
};

/// Maximum time that a read waits for a connection to the replica.
const BEGIN_LIMIT: Duration = Duration::from_millis(300);

/// Maximum time that a read waits for the position of the replica. The first read on a connection needs
/// two round trips, and three behind a pooler.
const POSITION_LIMIT: Duration = Duration::from_millis(600);

/// Maximum time of the statements of a read, other than a search.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Maximum time of a search, which the server limits itself while it responds.
const SEARCH_LIMIT: Duration = STATEMENT_TIMEOUT.saturating_add(READ_LIMIT);

/// Settings of a replica.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSettings {
    /// Maximum time by which reads from the replica may lag.
    pub max_lag: Duration,
    /// Whether reads for users who have just written, and of conversations that were just written to,
    /// use the primary. Unnecessary if commits wait until the replica has applied them.
    pub reads_own_writes: bool,
}

/// Subject of a read.
#[derive(Clone, Copy, Debug)]
enum Subject<'a> {
    Conversation(ConversationId),
    /// All conversations of a user.
    User(&'a UserId),
}

/// Replica of a primary. See the documentation of the module.
#[derive(Clone)]
pub(super) struct Replica {
    pool: Arc<PostgresPool>,
    comparison: Arc<Comparison>,
    opener: Arc<Opener>,
    /// Limits exports from the replica.
    transfers: TransferLimit,
    settings: ReplicaSettings,
    recent_writes: Arc<RecentWrites>,
    instruments: Arc<Instruments>,
}

impl Replica {
    pub(super) fn new(
        pool: PostgresPool,
        check: Arc<SessionCheck>,
        primary: Arc<PostgresPool>,
        transfers: TransferLimit,
        settings: ReplicaSettings,
    ) -> Self {
        let pool = Arc::new(pool);
        let instruments = Arc::new(Instruments::new());
        let comparison = Comparison::new(
            Arc::clone(&pool),
            check,
            primary,
            settings.max_lag,
            Arc::clone(&instruments),
        );
        Self {
            opener: Arc::new(Opener::new(Arc::clone(&pool))),
            pool,
            comparison: Arc::new(comparison),
            transfers,
            settings,
            recent_writes: Arc::new(RecentWrites::new()),
            instruments,
        }
    }

    /// Writes of this process that the replica may lack.
    pub(super) fn recent_writes(&self) -> &RecentWrites {
        &self.recent_writes
    }

    /// Checks the replica before the first read, which would use the primary otherwise.
    pub(super) fn check_soon(&self) {
        self.comparison.start_check();
    }

    /// Returns what the replica must have applied for a read; `None` if the read uses the primary.
    async fn admit(&self, state: MinState, subject: Subject<'_>) -> Option<Required> {
        let MinState::Position(min) = state else {
            return None;
        };
        let ReplicaSettings {
            max_lag,
            reads_own_writes,
        } = self.settings;
        if reads_own_writes && self.recent_writes.contains(subject, max_lag) {
            self.instruments.count(Outcome::RecentWrite);
            return None;
        }
        match self.comparison.required().await {
            Ok(required) => Some(required.and_position(min)),
            Err(outcome) => {
                self.instruments.count(outcome);
                None
            }
        }
    }

    /// Reads from the replica, for at most `limit`, if it has applied what is required. Returns `None` if
    /// the primary must be read instead, and otherwise the outcome, and the state that the next page
    /// needs.
    ///
    /// # Errors
    ///
    /// Fails only with errors that the primary would not avoid: the read is too expensive.
    async fn read<T>(
        &self,
        required: Required,
        limit: Duration,
        statements: impl AsyncFnOnce(&mut StoreConnection) -> Result<T, OperationError>,
    ) -> Result<Option<(T, MinState)>, StoreError> {
        let Some(mut connection) = self.begin(required).await else {
            return Ok(None);
        };
        let wait = connection.wait();
        let exceeded = "the replica did not respond in time";
        let outcome = wait
            .within(limit, exceeded, statements(&mut *connection))
            .await;
        let outcome = match outcome {
            Ok(value) => {
                let wait = connection.begin_wait();
                let applied = applied(&mut connection);
                let read = match wait.within(POSITION_LIMIT, exceeded, applied).await {
                    Ok(Applied {
                        position: Some(position),
                        ..
                    }) => Ok((value, MinState::Position(position))),
                    Ok(Applied { position: None, .. }) => Err(promoted().into()),
                    Err(error) => Err(error),
                };
                connection.release(read).await
            }
            Err(error) => connection.release(Err(error)).await,
        };
        match outcome {
            Ok(read) => {
                self.comparison.succeed();
                self.instruments.count(Outcome::Replica);
                Ok(Some(read))
            }
            Err(error) => self.give_up(error).map(|()| None),
        }
    }

    /// Searches on the replica as [`Self::read`] reads, with a permit of its searches.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::TooManySearches`] as well.
    async fn search<T>(
        &self,
        required: Required,
        statements: impl AsyncFnOnce(&mut StoreConnection) -> Result<T, OperationError>,
    ) -> Result<Option<(T, MinState)>, StoreError> {
        let mut permit = Some(self.pool.searches.start().await?);
        let read = self.read(required, SEARCH_LIMIT, async |connection| {
            // Dropped with this future, the permit counts until the server ends the statement.
            let permit = permit.take();
            let found = statements(connection).await;
            if let Some(permit) = permit {
                permit.end();
            }
            found
        });
        let read = read.await;
        if let Some(permit) = permit {
            permit.end();
        }
        read
    }

    /// Waits for a connection to a replica that has applied what is required.
    async fn begin(&self, required: Required) -> Option<PooledConnection> {
        let comparison = Arc::clone(&self.comparison);
        let acquired = self.opener.acquire(move |cause| comparison.fail(&cause));
        let mut connection = match acquired.await {
            Ok(Some(connection)) => connection,
            Ok(None) => {
                self.instruments.count(Outcome::Busy);
                return None;
            }
            Err(error) => {
                self.fail(&error.into_cause());
                return None;
            }
        };
        let refusal = match with_patience(POSITION_LIMIT, applied(&mut connection)).await {
            Ok(Ok(applied)) => match applied.check(required) {
                Ok(_) => return Some(connection),
                Err(refusal) => refusal,
            },
            Ok(Err(error)) => Refusal::transient(error.into_cause().to_string()),
            Err(_) => Refusal::transient("the server does not respond"),
        };
        // A connection that is not released is closed.
        match &refusal {
            Refusal::Behind => {
                let _ = connection.release(Ok(())).await;
            }
            // Another connection can lead to another server.
            Refusal::OtherHistory => self.instruments.log_skipped(&refusal.cause()),
            Refusal::Unusable { cause, .. } => {
                self.fail(cause);
                return None;
            }
        }
        self.instruments.count(refusal.outcome());
        None
    }

    /// Ends the use of the replica because of a read.
    fn fail(&self, cause: &Cause) {
        self.pool.server.record_loss();
        self.comparison.fail(cause);
        self.instruments.count(Outcome::Unavailable);
    }

    /// Decides what follows from an error of a read.
    fn give_up(&self, error: OperationError) -> Result<(), StoreError> {
        let outcome = match error {
            OperationError::Store(
                error @ (StoreError::SearchTooExpensive | StoreError::TooManySearches),
            ) => return Err(error),
            // It may have been created, or transferred, since.
            OperationError::Store(_) => Outcome::NotFound,
            OperationError::Backend(error) if error.kind == ErrorKind::Retryable => {
                Outcome::Conflict
            }
            OperationError::Backend(error) => {
                self.fail(&error.cause);
                return Ok(());
            }
        };
        self.instruments.count(outcome);
        Ok(())
    }

    /// Ends the comparison with the primary, and then closes the connections to the replica.
    pub(super) async fn close(&self) {
        self.comparison.close().await;
        self.opener.close().await;
        self.pool.close().await;
    }
}

/// What the replica of a connection has applied.
async fn applied(connection: &mut StoreConnection) -> Result<Applied, OperationError> {
    let response = query_as(APPLIED).fetch_one(connection).await;
    Ok(Applied::from_response(response)?)
}

/// Error of a standby that accepts writes now, whose connection is closed.
fn promoted() -> BackendError {
    BackendError::new(
        ErrorKind::ConnectionLost,
        "the server is no standby any more",
    )
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}
