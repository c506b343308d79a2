//! Comparison of a replica with its primary.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::query_as;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    BEGIN_LIMIT, cause_of,
    instruments::{Instruments, Outcome},
    positions::{Positions, PrimaryPosition},
};
use crate::{
    patience::with_patience,
    store::{
        operation_error::{Cause, OperationError},
        postgres::{
            connection::{PooledConnection, PostgresPool},
            prepare,
            session_check::SessionCheck,
        },
    },
};

/// Maximum time of each step of a check, shorter than a wait for a connection, which would count as a
/// timeout of the pool.
const STEP_LIMIT: Duration = Duration::from_millis(600);

/// Maximum time of the first check, which connects, and detects a pooler.
const PREPARE_LIMIT: Duration = Duration::from_secs(5);

/// Maximum interval of the checks, and minimum one while the replica cannot be used.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Number of times that the interval is doubled, because reads have failed again after a check.
const MAX_DOUBLINGS: u32 = 5;

/// Maximum time that a check waits for the replica to reach the position of the primary, and the
/// interval in which it looks.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(100);
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// Position of the primary, and the identity of the database and of its table.
const PRIMARY: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint, \
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())::bigint, \
    to_regclass('conversations')::oid::bigint";

/// Position up to which the replica has applied the log, the identity as in [`PRIMARY`], and the
/// timeline that it receives, which the role may not be allowed to read.
const REPLICA: &str = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, \
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())::bigint, \
    to_regclass('conversations')::oid::bigint, \
    (SELECT r.received_tli FROM pg_stat_wal_receiver r)";

/// Comparison of a replica with its primary, which is repeated while there are reads.
pub(super) struct Comparison {
    pool: Arc<PostgresPool>,
    check: Arc<SessionCheck>,
    primary: Arc<PostgresPool>,
    max_lag: Duration,
    state: Mutex<State>,
    /// Number of checks that have ended.
    ended: watch::Sender<u64>,
    tasks: TaskTracker,
    instruments: Arc<Instruments>,
}

struct State {
    positions: Positions,
    status: Status,
    /// When the last check has ended, or the replica turned out to be unusable since.
    changed: Option<Instant>,
    is_checking: bool,
    /// How often reads have ended the use of the replica since the last one that succeeded.
    failures: u32,
}

/// Whether the replica can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// It has never been connected to.
    Unknown,
    Usable,
    Behind,
    Unusable,
}

/// Why the replica is not used.
enum Refusal {
    Behind,
    Unusable(Cause),
}

/// Check in progress, which ends when it is dropped.
struct Checking<'a>(&'a Comparison);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.state().is_checking = false;
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}

impl State {
    /// Factor of the interval of the checks. A replica whose checks succeed, but whose reads fail,
    /// is used less and less often.
    fn interval_factor(&self) -> u32 {
        match self.status {
            Status::Unusable => 1 << self.failures.saturating_sub(1).min(MAX_DOUBLINGS),
            Status::Unknown | Status::Usable | Status::Behind => 1,
        }
    }
}

impl Status {
    fn outcome(self) -> Outcome {
        match self {
            Self::Behind => Outcome::Behind,
            Self::Unknown | Self::Usable | Self::Unusable => Outcome::Unavailable,
        }
    }
}

impl Comparison {
    pub(super) fn new(
        pool: Arc<PostgresPool>,
        check: Arc<SessionCheck>,
        primary: Arc<PostgresPool>,
        max_lag: Duration,
        instruments: Arc<Instruments>,
    ) -> Self {
        Self {
            pool,
            check,
            primary,
            max_lag,
            state: Mutex::new(State {
                positions: Positions::new(max_lag),
                status: Status::Unknown,
                changed: None,
                is_checking: false,
                failures: 0,
            }),
            ended: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            instruments,
        }
    }

    /// Returns the position that the replica must have reached, after a check if the last one is too
    /// long ago. Waits only for a replica that could be used before.
    pub(super) async fn required(self: &Arc<Self>) -> Result<u64, Outcome> {
        let mut ended = self.ended.subscribe();
        let waits = {
            let state = self.state();
            let now = Instant::now();
            let interval = self.interval() * state.interval_factor();
            let is_due = state
                .changed
                .is_none_or(|at| now.duration_since(at) >= interval);
            match (state.status, state.positions.required(now)) {
                (Status::Usable, Some(required)) if !is_due => return Ok(required),
                (Status::Usable, _) => true,
                (status, _) if !is_due => return Err(status.outcome()),
                _ => false,
            }
        };
        self.start_check();
        if waits {
            let _ = with_patience(BEGIN_LIMIT, ended.changed()).await;
        }
        let state = self.state();
        match (state.status, state.positions.required(Instant::now())) {
            (Status::Usable, Some(required)) if waits => Ok(required),
            (Status::Usable, _) => Err(Outcome::Unavailable),
            (status, _) => Err(status.outcome()),
        }
    }

    /// Starts a check unless one is in progress.
    pub(super) fn start_check(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().is_checking, true) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let checking = Checking(&this);
            let checked = this.check().await;
            this.conclude(checked);
            drop(checking);
        });
    }

    /// Ends the use of the replica until the next check.
    pub(super) fn fail(&self, cause: &Cause) {
        let mut state = self.state();
        if state.status == Status::Usable {
            state.status = Status::Unusable;
            state.failures += 1;
            state.changed = Some(Instant::now());
        }
        drop(state);
        self.instruments.log_unusable(cause);
    }

    /// Records that a read has succeeded.
    pub(super) fn succeed(&self) {
        self.state().failures = 0;
    }

    /// Waits for the check in progress.
    pub(super) async fn close(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Interval of the checks.
    fn interval(&self) -> Duration {
        (self.max_lag / 2).min(MAX_INTERVAL)
    }

    /// Compares the replica with the primary, whose position is read before and afterwards: a
    /// replica that is ahead follows another history.
    async fn check(&self) -> Result<(), Refusal> {
        let is_known = self.state().status != Status::Unknown;
        if !is_known {
            let prepared = with_patience(PREPARE_LIMIT, self.prepare()).await;
            prepared.unwrap_or_else(|_| Err(Cause::new("the server does not respond")))?;
        }
        let before = self.read_primary().await?;
        let began = Instant::now();
        let replica = loop {
            let replica = self.read_replica().await?;
            if replica.position >= before.position || began.elapsed() > CATCH_UP_LIMIT {
                break replica;
            }
            tokio::time::sleep(CATCH_UP_INTERVAL).await;
        };
        let after = self.read_primary().await?;
        let timeline = self.primary.server.timeline();
        if replica.position > after.position
            || replica
                .timeline
                .is_some_and(|own| timeline.is_some_and(|it| it != own))
        {
            return Err(Refusal::Unusable(Cause::new(
                "the server does not follow the primary: it has another history since a failover",
            )));
        }
        let mut state = self.state();
        state.positions.add(before.at());
        state.positions.add(after.at());
        let required = state.positions.required(Instant::now());
        drop(state);
        if required.is_none_or(|required| replica.position < required) {
            return Err(Refusal::Behind);
        }
        // The table exists on both, because the replica has reached a state in which it did.
        if (replica.database, replica.table) != (before.database, before.table) {
            return Err(Refusal::Unusable(Cause::new(
                "the server has another database than DATABASE_URL",
            )));
        }
        Ok(())
    }

    fn conclude(&self, checked: Result<(), Refusal>) {
        let mut state = self.state();
        let before = state.status;
        state.changed = Some(Instant::now());
        let cause = match checked {
            Ok(()) => {
                state.status = Status::Usable;
                drop(state);
                if before != Status::Usable {
                    self.instruments.log_usable();
                }
                return;
            }
            Err(Refusal::Behind) => {
                state.status = Status::Behind;
                Cause::new("it lags by more than DATABASE_READ_MAX_LAG")
            }
            Err(Refusal::Unusable(cause)) => {
                if before != Status::Unknown {
                    state.status = Status::Unusable;
                }
                cause
            }
        };
        drop(state);
        self.instruments.log_unusable(&cause);
    }

    /// Connects for the first time: finds a standby among several servers, and detects a pooler.
    async fn prepare(&self) -> Result<(), Cause> {
        self.pool.locate().await;
        let prepared = prepare::detect_pooler(self.pool.options(), &self.check).await;
        self.pool.update_options();
        prepared
    }

    async fn read_primary(&self) -> Result<ReadPrimary, Refusal> {
        let sent = Instant::now();
        let row = within_step(Box::pin(read_row::<(i64, i64, i64)>(
            &self.primary,
            PRIMARY,
        )))
        .await;
        // Its outage does not concern the replica, but reads must not lag without a bound.
        let (position, database, table) = row.map_err(|cause| {
            Refusal::Unusable(Cause::new(format!(
                "the position of the primary is unknown: {cause}"
            )))
        })?;
        Ok(ReadPrimary {
            sent,
            position: position.cast_unsigned(),
            database,
            table,
        })
    }

    async fn read_replica(&self) -> Result<ReadReplica, Refusal> {
        type Row = (Option<i64>, i64, Option<i64>, Option<i32>);
        let row = within_step(Box::pin(read_row::<Row>(&self.pool, REPLICA))).await;
        let (position, database, table, timeline) = row?;
        Ok(ReadReplica {
            position: position.unwrap_or_default().cast_unsigned(),
            database,
            table: table.unwrap_or_default(),
            timeline,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of the primary in a check.
struct ReadPrimary {
    sent: Instant,
    position: u64,
    database: i64,
    table: i64,
}

impl ReadPrimary {
    fn at(&self) -> PrimaryPosition {
        PrimaryPosition {
            position: self.position,
            at: self.sent,
        }
    }
}

/// State of the replica in a check.
struct ReadReplica {
    position: u64,
    database: i64,
    table: i64,
    timeline: Option<i32>,
}

impl From<Cause> for Refusal {
    fn from(cause: Cause) -> Self {
        Self::Unusable(cause)
    }
}

async fn within_step<T>(read: impl Future<Output = Result<T, OperationError>>) -> Result<T, Cause> {
    match with_patience(STEP_LIMIT, read).await {
        Ok(read) => read.map_err(cause_of),
        Err(_) => Err(Cause::new("the server does not respond")),
    }
}

async fn read_row<R>(pool: &PostgresPool, statement: &'static str) -> Result<R, OperationError>
where
    R: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    let mut connection = PooledConnection::acquire(pool).await?;
    let row = query_as(statement).fetch_one(&mut *connection).await;
    connection.release(row.map_err(OperationError::from)).await
}
