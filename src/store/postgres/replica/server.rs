//! What a primary and its replicas report, and whether a replica may be read.
//!
//! A replica that has another history than the primary, since a failover has lost transactions, cannot be
//! recognized by its position: the primary passes it sooner or later. The primary therefore has a row with
//! the time at which it was started. A replica that has this row has applied the log of this very primary.

use std::time::{Duration, Instant};

use sqlx::{Error, Executor, FromRow, Postgres, postgres::PgRow, raw_sql};
use tokio::time::sleep;

use super::instruments::Outcome;
use crate::store::operation_error::{BackendError, Cause};

macro_rules! started_at {
    () => {
        "(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
    };
}

/// Position of the primary, when it was started, the row that replicas must have, and the identity of the
/// database and of its table.
pub(super) const PRIMARY: &str = concat!(
    "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS position, ",
    started_at!(),
    " AS started_at, \
     (SELECT p.started_at FROM primary_start p WHERE p.is_current) AS recorded, \
     (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())::bigint AS database_oid, \
     to_regclass('primary_start')::oid::bigint AS table_oid"
);

/// Records when the primary was started. It must not wait for a standby.
pub(super) const RECORD_START: &str = concat!(
    "INSERT INTO primary_start AS p (started_at) SELECT ",
    started_at!(),
    " WHERE (SELECT set_config('synchronous_commit', 'local', true)) IS NOT NULL \
     ON CONFLICT (is_current) DO UPDATE SET started_at = excluded.started_at \
     WHERE p.started_at <> excluded.started_at"
);

/// Position up to which a replica has applied the log, and the identity as in [`PRIMARY`].
const REPLICA: &str = "SELECT (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, \
    (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())::bigint, \
    to_regclass('primary_start')::oid::bigint";

/// Columns of [`Applied`]. The timeline is the one that the replica receives; it is NULL for roles that
/// lack the permission to read it, and while no WAL receiver runs.
pub(super) const APPLIED: &str = "SELECT CASE WHEN pg_is_in_recovery() \
        THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END, \
    (SELECT p.started_at FROM primary_start p WHERE p.is_current), \
    (SELECT r.received_tli FROM pg_stat_wal_receiver r)";

/// Maximum time that an examination waits for a replica to reach the position of the primary, and the
/// interval in which it looks.
const CATCH_UP_LIMIT: Duration = Duration::from_millis(100);
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(5);

/// SQLSTATE code with which a server rejects a statement that names a table which it does not have.
const UNDEFINED_TABLE: &str = "42P01";

/// Classes of SQLSTATE codes that a server returns until its configuration, or that of this program, is
/// changed: authentication, no such database, no permission, not supported.
const LASTING: [&str; 4] = ["28", "3D", "42", "0A"];

/// State of the primary.
#[derive(Clone, Copy, Debug, FromRow)]
pub(super) struct Primary {
    position: i64,
    pub(super) started_at: i64,
    /// What replicas find in their row.
    recorded: Option<i64>,
    database_oid: i64,
    table_oid: Option<i64>,
}

impl Primary {
    pub(super) fn position(&self) -> u64 {
        self.position.cast_unsigned()
    }

    /// Whether a replica can have the row of this start.
    pub(super) fn has_recorded_start(&self) -> bool {
        self.recorded == Some(self.started_at)
    }
}

/// What a replica must have applied in order to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Required {
    pub(super) position: u64,
    /// When its primary was started.
    pub(super) started_at: i64,
    /// Timeline of the primary. `None` if it has not been read.
    pub(super) timeline: Option<i32>,
}

impl Required {
    /// Requires a position that a page was read at as well.
    pub(super) fn and_position(self, position: u64) -> Self {
        Self {
            position: self.position.max(position),
            ..self
        }
    }
}

/// What a replica has applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    /// `None` if it is no standby any more.
    pub(super) position: Option<u64>,
    started_at: Option<i64>,
    timeline: Option<i32>,
}

impl FromRow<'_, PgRow> for Applied {
    fn from_row(row: &PgRow) -> Result<Self, Error> {
        let (position, started_at, timeline): (Option<i64>, Option<i64>, Option<i32>) =
            FromRow::from_row(row)?;
        Ok(Self {
            position: position.map(i64::cast_unsigned),
            started_at,
            timeline,
        })
    }
}

impl Applied {
    /// Nothing, as a server that does not have the table yet.
    const NOTHING: Self = Self {
        position: Some(0),
        started_at: None,
        timeline: None,
    };

    /// Interprets the response to [`APPLIED`]. A server without the table has not applied the migration.
    pub(super) fn from_response(response: Result<Self, Error>) -> Result<Self, Error> {
        match response {
            Err(error) if code(&error).as_deref() == Some(UNDEFINED_TABLE) => Ok(Self::NOTHING),
            response => response,
        }
    }

    /// Checks that a replica has applied what is required, and returns its position.
    pub(super) fn check(&self, required: Required) -> Result<u64, Refusal> {
        let Some(position) = self.position else {
            return Err(Refusal::lasting("the server is no standby any more"));
        };
        if position < required.position {
            return Err(Refusal::Behind);
        }
        let is_of_timeline = match (self.timeline, required.timeline) {
            (Some(own), Some(timeline)) => own == timeline,
            _ => true,
        };
        if self.started_at == Some(required.started_at) && is_of_timeline {
            Ok(position)
        } else {
            Err(Refusal::OtherHistory)
        }
    }
}

/// Why a replica is not used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It lags by more than the maximum.
    Behind,
    /// It has applied what the primary has not.
    OtherHistory,
    Unusable {
        cause: Cause,
        /// Whether the cause is a mistake, which lasts until it is corrected.
        lasts: bool,
    },
}

impl Refusal {
    pub(super) fn lasting(cause: impl Into<String>) -> Self {
        Self::Unusable {
            cause: Cause::new(cause),
            lasts: true,
        }
    }

    pub(super) fn transient(cause: impl Into<String>) -> Self {
        Self::Unusable {
            cause: Cause::new(cause),
            lasts: false,
        }
    }

    /// Refusal by the check of a new connection, which has no other reason than the server.
    pub(super) fn of_check(error: Error) -> Self {
        let is_rejected = matches!(error, Error::Configuration(_));
        match Self::from(error) {
            Self::Unusable { cause, lasts } => Self::Unusable {
                cause,
                lasts: lasts || is_rejected,
            },
            other => other,
        }
    }

    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Behind => false,
            Self::OtherHistory => true,
            Self::Unusable { lasts, .. } => *lasts,
        }
    }

    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Behind => Cause::new("it lags by more than DATABASE_READ_MAX_LAG"),
            Self::OtherHistory => Cause::new(
                "the server does not follow the primary: it has another history since a failover",
            ),
            Self::Unusable { cause, .. } => cause.clone(),
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Behind => Outcome::Behind,
            Self::OtherHistory | Self::Unusable { .. } => Outcome::Unavailable,
        }
    }
}

/// The server rejects a statement or a connection.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let lasts =
            code(&error).is_some_and(|code| LASTING.iter().any(|class| code.starts_with(class)));
        Self::Unusable {
            cause: BackendError::from(error).cause,
            lasts,
        }
    }
}

fn code(error: &Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}

/// Reads the position that a replica has applied, and compares the identity of its database if it has
/// reached the required one.
async fn read_position<C>(
    connection: &mut C,
    primary: &Primary,
    required: Required,
) -> Result<u64, Refusal>
where
    for<'c> &'c mut C: Executor<'c, Database = Postgres>,
{
    let row = raw_sql(REPLICA).fetch_one(&mut *connection).await?;
    let (position, database, table): (Option<i64>, i64, Option<i64>) = FromRow::from_row(&row)?;
    let position = position.unwrap_or_default().cast_unsigned();
    if position < required.position {
        return Ok(position);
    }
    // The table exists, because the replica has reached a state in which it did.
    if database != primary.database_oid || (table.is_some() && table != primary.table_oid) {
        return Err(Refusal::lasting(
            "the server has another database than DATABASE_URL",
        ));
    }
    if table.is_none() {
        return Err(Refusal::lasting(
            "the role does not see the tables of DATABASE_URL: it needs USAGE of their schema, which must be \
             in its search_path, and SELECT on them",
        ));
    }
    Ok(position)
}

/// Examines the replica of a connection: waits a moment until it has reached the position of the primary,
/// and returns the position that it has applied if it may be read.
pub(super) async fn examine<C>(
    connection: &mut C,
    primary: &Primary,
    required: Required,
) -> Result<u64, Refusal>
where
    for<'c> &'c mut C: Executor<'c, Database = Postgres>,
{
    let began = Instant::now();
    while read_position(&mut *connection, primary, required).await? < primary.position()
        && began.elapsed() < CATCH_UP_LIMIT
    {
        sleep(CATCH_UP_INTERVAL).await;
    }
    let response = raw_sql(APPLIED).fetch_one(&mut *connection).await;
    let response = response.and_then(|row| Applied::from_row(&row));
    Applied::from_response(response)?.check(required)
}
