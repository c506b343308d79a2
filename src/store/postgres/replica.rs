//! Replica for reads that may lag.
//!
//! A read may use the replica if that has reached a position of the primary's write-ahead log that
//! was read at most [`ReplicaSettings::max_lag`] before. So the read shows everything that was
//! acknowledged before that time, whatever the clocks of the servers show and however long nothing
//! was written. Each read compares the position of the very connection that it uses, which may lead
//! to any of several replicas. Everything else is read from the primary.

mod comparison;
mod import;
mod instruments;
mod positions;
mod reads;
mod recent_writes;
mod snapshot;

use std::{fmt, sync::Arc, time::Duration};

use sqlx::query_as;

pub(super) use self::import::record as record_import;
use self::{
    comparison::Comparison,
    instruments::{Instruments, Outcome},
    recent_writes::RecentWrites,
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

/// Maximum time that a read waits for the replica before its first statement.
const BEGIN_LIMIT: Duration = Duration::from_millis(300);

/// Maximum time of the statements of a read, other than a search.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// Maximum time of a search, which the server limits itself while it responds.
const SEARCH_LIMIT: Duration = STATEMENT_TIMEOUT.saturating_add(READ_LIMIT);

/// Position up to which the replica has applied the log; NULL if it is a standby no more.
const APPLIED: &str = "SELECT CASE WHEN pg_is_in_recovery() \
    THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END";

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
struct Subject<'a> {
    conversation: Option<ConversationId>,
    user: Option<&'a UserId>,
}

/// Replica of a primary. See the documentation of the module.
#[derive(Clone)]
pub(super) struct Replica {
    pool: Arc<PostgresPool>,
    comparison: Arc<Comparison>,
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
            pool,
            comparison: Arc::new(comparison),
            transfers,
            settings,
            recent_writes: Arc::new(RecentWrites::new()),
            instruments,
        }
    }

    /// Records a write that has ended, with any outcome.
    pub(super) fn record_write(&self, conversation: ConversationId, user: Option<&UserId>) {
        self.recent_writes.record(conversation, user);
    }

    /// Checks the replica before the first read, which would use the primary otherwise.
    pub(super) fn check_soon(&self) {
        self.comparison.start_check();
    }

    /// Returns the position that the replica must have reached for a read; `None` if the read uses
    /// the primary.
    async fn admit(&self, state: MinState, subject: Subject<'_>) -> Option<u64> {
        let MinState::Position(min) = state else {
            return None;
        };
        let Subject { conversation, user } = subject;
        let ReplicaSettings {
            max_lag,
            reads_own_writes,
        } = self.settings;
        if reads_own_writes && self.recent_writes.contains(conversation, user, max_lag) {
            self.instruments.count(Outcome::RecentWrite);
            return None;
        }
        match self.comparison.required().await {
            Ok(required) => Some(required.max(min)),
            Err(outcome) => {
                self.instruments.count(outcome);
                None
            }
        }
    }

    /// Reads from the replica, for at most `limit`, if it has reached a position. Returns `None` if
    /// the primary must be read instead, and otherwise the outcome, and the state that the next page
    /// needs.
    ///
    /// # Errors
    ///
    /// Fails only with errors that the primary would not avoid: the read is too expensive.
    async fn read<T>(
        &self,
        required: u64,
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
                let applied = wait.within(BEGIN_LIMIT, exceeded, applied(&mut connection));
                let read = match applied.await {
                    Ok(Some(position)) => Ok((value, MinState::Position(position))),
                    Ok(None) => Err(promoted().into()),
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
        required: u64,
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

    /// Waits for a connection to a replica that has reached a position.
    async fn begin(&self, required: u64) -> Option<PooledConnection> {
        let beginning = async {
            let mut connection = PooledConnection::acquire(&self.pool).await?;
            let applied = applied(&mut connection).await;
            Ok::<_, OperationError>((connection, applied))
        };
        let begun = match with_patience(BEGIN_LIMIT, beginning).await {
            Ok(Ok((connection, applied))) => match applied {
                Ok(Some(position)) if position >= required => return Some(connection),
                // A connection that was not released is closed.
                Ok(None) => Err(promoted().cause),
                Ok(Some(_)) => {
                    let _ = connection.release(Ok(())).await;
                    self.instruments.count(Outcome::Behind);
                    return None;
                }
                Err(error) => Err(cause_of(error)),
            },
            Ok(Err(error)) => Err(cause_of(error)),
            Err(_) => Err(Cause::new("the server does not respond")),
        };
        let begun: Result<(), Cause> = begun;
        if let Err(cause) = begun {
            self.pool.server.record_loss();
            self.comparison.fail(&cause);
            self.instruments.count(Outcome::Unavailable);
        }
        None
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
                self.pool.server.record_loss();
                self.comparison.fail(&error.cause);
                Outcome::Unavailable
            }
        };
        self.instruments.count(outcome);
        Ok(())
    }

    /// Ends the comparison with the primary, and then closes the connections to the replica.
    pub(super) async fn close(&self) {
        self.comparison.close().await;
        self.pool.close().await;
    }
}

/// Position up to which a replica has applied the log. `None` if it was promoted.
async fn applied(connection: &mut StoreConnection) -> Result<Option<u64>, OperationError> {
    let (position,): (Option<i64>,) = query_as(APPLIED).fetch_one(connection).await?;
    Ok(position.map(i64::cast_unsigned))
}

/// Error of a standby that accepts writes now, whose connection is closed.
fn promoted() -> BackendError {
    BackendError::new(
        ErrorKind::ConnectionLost,
        "the server is no standby any more",
    )
}

fn cause_of(error: OperationError) -> Cause {
    match error {
        OperationError::Store(error) => Cause::new(error.to_string()),
        OperationError::Backend(BackendError { cause, .. }) => cause,
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").finish_non_exhaustive()
    }
}
