//! Comparison of a replica with its primary.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{query, query_as};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{
    BEGIN_LIMIT,
    instruments::{Instruments, Outcome},
    opener::OPEN_LIMIT,
    server::{self, PRIMARY, Primary, RECORD_START, Refusal, Required},
    state::{State, Status},
};
use crate::{
    patience::with_patience,
    store::{
        operation_error::{Cause, OperationError},
        postgres::{
            connection::{PooledConnection, PostgresPool},
            prepare::{self, DetectionError},
            session_check::{SessionCheck, rejection},
            store_connection::StoreConnection,
        },
    },
};

/// Maximum time of each statement on the primary, shorter than a wait for a connection, which would
/// count as a timeout of the pool.
const PRIMARY_LIMIT: Duration = Duration::from_millis(600);

/// Maximum time in which an open connection to a replica is examined.
const EXAMINE_LIMIT: Duration = Duration::from_secs(2);

/// Maximum time of the first check, which connects, and detects a pooler.
const PREPARE_LIMIT: Duration = Duration::from_secs(5);

/// Maximum interval of the checks, and minimum one while the replica cannot be used.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// Number of connections that a check examines, because there can be several servers at one address.
const MAX_EXAMINED: usize = 3;

/// Minimum time between two searches for another server that can be used.
const RELOCATION_INTERVAL: Duration = Duration::from_secs(5);

/// Comparison of a replica with its primary, which is repeated while there are reads.
pub(super) struct Comparison {
    pool: Arc<PostgresPool>,
    check: Arc<SessionCheck>,
    primary: Arc<PostgresPool>,
    max_lag: Duration,
    state: Mutex<State>,
    /// Changes when a check has read the position of the primary, and when it has ended.
    progress: watch::Sender<u64>,
    tasks: TaskTracker,
    instruments: Arc<Instruments>,
}

/// Check in progress, which ends when it is dropped.
struct Checking<'a>(&'a Comparison);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.state().is_checking = false;
        self.0.record_progress();
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
            state: Mutex::new(State::new(max_lag)),
            progress: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            instruments,
        }
    }

    /// Returns what the replica must have applied. Starts a check if the last one is too long ago, and
    /// waits for the position of the primary if that is not known, but only for a replica that could be
    /// used before.
    pub(super) async fn required(self: &Arc<Self>) -> Result<Required, Outcome> {
        let mut progress = self.progress.subscribe();
        let (status, known, is_due) = {
            let state = self.state();
            let now = Instant::now();
            let is_due = state.is_due(now, self.interval());
            (state.status, self.known(&state, now), is_due)
        };
        if is_due || (status == Status::Usable && known.is_none()) {
            self.start_check();
        }
        match (status, known) {
            (Status::Usable, Some(required)) => return Ok(required),
            (Status::Usable, None) => {}
            (status, _) => return Err(status.outcome()),
        }
        let position = async {
            while progress.changed().await.is_ok() {
                let state = self.state();
                if !state.is_checking || self.known(&state, Instant::now()).is_some() {
                    break;
                }
            }
        };
        let _ = with_patience(BEGIN_LIMIT, position).await;
        let state = self.state();
        match (state.status, self.known(&state, Instant::now())) {
            (Status::Usable, Some(required)) => Ok(required),
            (status, _) => Err(status.outcome()),
        }
    }

    /// What the replica must have applied, if that is known: the positions are those of the server that
    /// the connections to the primary lead to.
    fn known(&self, state: &State, now: Instant) -> Option<Required> {
        state.required(now, |started_at| {
            self.primary.server.has_started_at(started_at)
        })
    }

    /// Starts a check unless one is in progress.
    pub(super) fn start_check(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().is_checking, true) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let checking = Checking(&this);
            let checked = Box::pin(this.check()).await;
            this.conclude(checked);
            drop(checking);
        });
    }

    /// Ends the use of the replica until the next check.
    pub(super) fn fail(&self, cause: &Cause) {
        self.state().fail();
        self.instruments.log_unusable(cause);
    }

    /// Records that a read has succeeded.
    pub(super) fn succeed(&self) {
        self.state().succeed();
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

    /// Compares the replica with the primary. If it cannot be used, another one of several is looked for.
    async fn check(&self) -> Result<(), Refusal> {
        let primary = self.read_primary().await?;
        if self.state().status == Status::Unknown {
            let prepared = with_patience(PREPARE_LIMIT, self.prepare(&primary)).await;
            prepared.unwrap_or_else(|_| Err(Refusal::transient("the server does not respond")))?;
        }
        match self.compare(&primary).await {
            Err(_) if self.relocate(&primary).await => self.compare(&primary).await,
            compared => compared,
        }
    }

    /// Compares the replica with the primary, whose position is read again afterwards: a replica that is
    /// ahead follows another history.
    async fn compare(&self, primary: &Primary) -> Result<(), Refusal> {
        let position = self.examine(primary).await?;
        let after = self.read_primary().await?;
        if position > after.position() {
            return Err(Refusal::OtherHistory);
        }
        Ok(())
    }

    /// Examines connections to the replica, until one leads to a server that may be read, and returns the
    /// position that it has applied. The servers at one address can differ.
    async fn examine(&self, primary: &Primary) -> Result<u64, Refusal> {
        // They are in use, so that the next connection can lead to another server.
        let mut examined = Vec::new();
        let mut outcome = Err(Refusal::Behind);
        let mut limit = OPEN_LIMIT;
        for number in 0..MAX_EXAMINED {
            let mut connection = match self.acquire(limit).await {
                Ok(Some(connection)) => connection,
                // Reads have all connections in use, and compare the position themselves.
                Ok(None) if number == 0 && self.state().status == Status::Usable => return Ok(0),
                Err(refusal) if number == 0 => return Err(refusal),
                Ok(None) | Err(_) => break,
            };
            outcome = self.examine_one(&mut connection, primary).await;
            match &outcome {
                Ok(_) | Err(Refusal::Behind) => examined.push(connection),
                // A connection that is not released is closed.
                Err(Refusal::OtherHistory) => {}
                Err(Refusal::Unusable { .. }) => break,
            }
            if outcome.is_ok() {
                break;
            }
            limit = BEGIN_LIMIT;
        }
        for connection in examined {
            let _ = connection.release(Ok(())).await;
        }
        outcome
    }

    async fn examine_one(
        &self,
        connection: &mut StoreConnection,
        primary: &Primary,
    ) -> Result<u64, Refusal> {
        let examined = server::examine(connection, primary, self.required_after(primary));
        with_patience(EXAMINE_LIMIT, examined)
            .await
            .unwrap_or_else(|_| Err(Refusal::transient("the server does not respond")))
    }

    /// Waits for a connection to the replica. Returns `None` if all are in use.
    async fn acquire(&self, limit: Duration) -> Result<Option<PooledConnection>, Refusal> {
        match with_patience(limit, PooledConnection::acquire(&self.pool)).await {
            Ok(Ok(connection)) => Ok(Some(connection)),
            Ok(Err(error)) => Err(Refusal::transient(error.cause.to_string())),
            Err(_) if self.pool.is_full() => Ok(None),
            Err(_) => Err(Refusal::transient("the server does not respond")),
        }
    }

    /// What a replica must have applied after the position of the primary was read.
    fn required_after(&self, primary: &Primary) -> Required {
        let known = self.known(&self.state(), Instant::now());
        known.unwrap_or_else(|| Required {
            position: primary.position(),
            started_at: primary.started_at,
            timeline: None,
        })
    }

    fn conclude(&self, checked: Result<(), Refusal>) {
        let was_usable = self.state().status == Status::Usable;
        self.state().conclude(&checked);
        match checked {
            Err(refusal) => self.instruments.log_unusable(&refusal.cause()),
            Ok(()) if !was_usable => self.instruments.log_usable(),
            Ok(()) => {}
        }
    }

    /// Connects for the first time: finds a server among several, and detects a pooler.
    async fn prepare(&self, primary: &Primary) -> Result<(), Refusal> {
        self.locate(primary).await;
        let detected = prepare::detect_pooler(self.pool.options(), &self.check).await;
        self.pool.update_options();
        detected.map_err(|error| match error {
            DetectionError::Connect(error) => error.into(),
            DetectionError::Check(error) => Refusal::of_check(error),
        })
    }

    /// Looks for another server that may be read, if there are several and the last search was not a
    /// moment ago. Returns whether there is one, which is used then.
    async fn relocate(&self, primary: &Primary) -> bool {
        if !self.pool.has_several_hosts() {
            return false;
        }
        {
            let mut state = self.state();
            if state
                .relocated
                .is_some_and(|at| at.elapsed() < RELOCATION_INTERVAL)
            {
                return false;
            }
            state.relocated = Some(Instant::now());
        }
        let is_relocated = self.locate(primary).await;
        if is_relocated {
            self.pool.update_options();
            self.pool.server.retire_connections();
        }
        is_relocated
    }

    /// Uses the first of several servers that may be read. Returns whether it is another one than before.
    async fn locate(&self, primary: &Primary) -> bool {
        let (primary, required) = (*primary, self.required_after(primary));
        self.pool
            .locate_with(&move |connection| {
                Box::pin(async move {
                    let examined = server::examine(connection, &primary, required).await;
                    let refused = |refusal: Refusal| rejection(refusal.cause().to_string());
                    examined.map(drop).map_err(refused)
                })
            })
            .await
    }

    /// Reads the position of the primary, and makes sure that replicas can recognize its history.
    async fn read_primary(&self) -> Result<Primary, Refusal> {
        // Its outage does not concern the replica, but reads must not lag without a bound.
        let unknown =
            |cause| Refusal::transient(format!("the position of the primary is unknown: {cause}"));
        let read = async || {
            let sent = Instant::now();
            let row = within_limit(read_row(&self.primary)).await;
            row.map(|primary| (primary, sent)).map_err(unknown)
        };
        let (mut primary, mut sent) = read().await?;
        if !primary.has_recorded_start() {
            let recorded = within_limit(record_start(&self.primary)).await;
            recorded.map_err(|cause| {
                Refusal::transient(format!(
                    "the start of the primary cannot be recorded: {cause}"
                ))
            })?;
            (primary, sent) = read().await?;
        }
        let timeline = self.primary.server.timeline();
        self.state().add(&primary, sent, timeline);
        self.record_progress();
        Ok(primary)
    }

    fn record_progress(&self) {
        self.progress.send_modify(|progress| *progress += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Limits the time of a statement on the primary.
async fn within_limit<T>(
    statement: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, Cause> {
    match with_patience(PRIMARY_LIMIT, Box::pin(statement)).await {
        Ok(outcome) => outcome.map_err(OperationError::into_cause),
        Err(_) => Err(Cause::new("the server does not respond")),
    }
}

async fn read_row(pool: &PostgresPool) -> Result<Primary, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let row = query_as(PRIMARY).fetch_one(&mut *connection).await;
    connection.release(row.map_err(OperationError::from)).await
}

async fn record_start(pool: &PostgresPool) -> Result<(), OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let recorded = query(RECORD_START).execute(&mut *connection).await;
    let recorded = recorded.map(drop).map_err(OperationError::from);
    connection.release(recorded).await
}
