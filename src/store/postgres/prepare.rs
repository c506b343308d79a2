use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, Error, FromRow, PgConnection, Row as _,
    migrate::{AppliedMigration, Migrator},
    postgres::PgConnectOptions,
    raw_sql,
};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    pooler::{Pooler, SettingsMode, rejects_parameters},
    session_check::{self, Session, SessionCheck, rejection},
};
use crate::store::{SchemaError, operation_error::BackendError, schema};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// First supported version, as `server_version_num` reports it.
const MIN_VERSION: i32 = 140_000;

/// Time limit of connecting, and of closing the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Removes the limit on the duration of transactions that a role can have since PostgreSQL 17: a migration
/// that copies tables takes as long as it takes. Earlier versions do not know the setting.
const NO_TRANSACTION_TIMEOUT: &str = "SELECT set_config(s.name, '0', false) FROM pg_settings s \
    WHERE s.name = 'transaction_timeout'";

/// Server whose schema is prepared.
pub(super) struct Target<'a> {
    /// Options that do not depend on the mode of the connections.
    pub(super) options: &'a PgConnectOptions,
    /// Options of a connection to PostgreSQL itself that migrates.
    pub(super) migration: Option<&'a PgConnectOptions>,
    pub(super) check: &'a SessionCheck,
}

/// Checks the schema and, if `migrate` is set, migrates it. Detects a pooler.
///
/// This uses separate connections without a statement timeout: a second process waits for the
/// lock of the first one for as long as that one migrates. The lock belongs to the session and
/// must not remain in a pool.
pub(super) async fn prepare(target: &Target<'_>, migrate: bool) -> Result<(), SchemaError> {
    let mut connection = connect(target.options, target.check).await?;
    let outcome = check_all(&mut connection, target, migrate).await;
    close(connection).await;
    outcome
}

/// Error of the detection of a pooler.
pub(super) enum DetectionError {
    /// There is no connection.
    Connect(Error),
    /// The check rejects the server.
    Check(Error),
}

/// Detects a pooler on the way to a server whose schema is that of another one.
pub(super) async fn detect_pooler(
    options: &PgConnectOptions,
    check: &SessionCheck,
) -> Result<(), DetectionError> {
    let opened = connect_to(options, check).await;
    let mut connection = opened.map_err(DetectionError::Connect)?;
    let checked = check.check_without_timeout(&mut connection).await;
    close(connection).await;
    checked.map(drop).map_err(DetectionError::Check)
}

/// Opens a connection, and opens it again without parameters if a pooler rejects them.
async fn connect(
    options: &PgConnectOptions,
    check: &SessionCheck,
) -> Result<PgConnection, SchemaError> {
    let opened = connect_to(options, check).await;
    opened.map_err(|error| SchemaError::Unavailable(BackendError::from(error).cause.into()))
}

async fn connect_to(
    options: &PgConnectOptions,
    check: &SessionCheck,
) -> Result<PgConnection, Error> {
    match open(&check.connect_options_without_timeout(options)).await {
        Err(error) if rejects_parameters(&error) && check.record_pooler() => {
            open(&check.connect_options_without_timeout(options)).await
        }
        opened => opened,
    }
}

async fn open(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let opened = timeout(CONNECT_TIMEOUT, options.connect()).await;
    opened.unwrap_or_else(|_| Err(rejection("the server did not respond in time")))
}

/// Closes a connection. An error does not change the outcome.
async fn close(connection: PgConnection) {
    let _ = timeout(CONNECT_TIMEOUT, connection.close()).await;
}

async fn check_all(
    connection: &mut PgConnection,
    target: &Target<'_>,
    migrate: bool,
) -> Result<(), SchemaError> {
    check_version(connection).await?;
    check_encoding(connection).await?;
    let was_pooled = target.check.mode() == SettingsMode::Transaction;
    let checked = target.check.check_without_timeout(connection).await;
    let mut session = checked.map_err(|error| schema::map_error(error.into()))?;
    if !was_pooled && target.check.mode() == SettingsMode::Transaction {
        let checked = target.check.check_without_timeout(connection).await;
        session = checked.map_err(|error| schema::map_error(error.into()))?;
    }
    warn_about(&session);
    check_or_migrate(connection, session, target, migrate).await
}

/// Rejects a server whose version lacks functions that the schema or the statements use.
async fn check_version(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let version = raw_sql(
        "SELECT current_setting('server_version_num')::int AS number, \
            current_setting('server_version') AS version",
    );
    let row = version.fetch_one(connection).await;
    let version = row.and_then(|row| Ok((row.try_get("number")?, row.try_get("version")?)));
    let (number, found): (i32, String) = version.map_err(|e| schema::map_error(e.into()))?;
    if number < MIN_VERSION {
        return Err(SchemaError::Version { found });
    }
    Ok(())
}

/// Rejects a database whose encoding cannot be changed and is not supported. The check of a session
/// rejects it, too, but as a condition that may end.
async fn check_encoding(connection: &mut PgConnection) -> Result<(), SchemaError> {
    let encoding = raw_sql("SHOW server_encoding").fetch_one(connection).await;
    let encoding = encoding.and_then(|row| row.try_get::<String, _>(0));
    match encoding {
        Ok(encoding) if session_check::is_supported(&encoding) => Ok(()),
        Ok(encoding) => Err(SchemaError::Encoding(session_check::unsupported_encoding(
            &encoding,
        ))),
        Err(error) => Err(schema::map_error(error.into())),
    }
}

/// Logs what the configuration of the server means for the durability of saves.
fn warn_about(session: &Session) {
    for setting in &session.unsafe_settings {
        warn!(
            "PostgreSQL runs with {setting}=off: a crash of its machine can lose acknowledged saves \
             or corrupt the database; set {setting}=on"
        );
    }
    if session.overrides_synchronous_commit {
        info!(
            "synchronous_commit=off is the default of this role or database; the sidecar's \
             connections set it to on, so that an acknowledged save survives a crash"
        );
    }
    if !session.reports_history {
        warn!(
            "PostgreSQL does not report its timeline to this role: after a failover that lost \
             transactions, CACHED reads can show them until the entries expire"
        );
    }
}

async fn check_or_migrate(
    connection: &mut PgConnection,
    session: Session,
    target: &Target<'_>,
    migrate: bool,
) -> Result<(), SchemaError> {
    // Checked first, because a role without the right to migrate can use a current schema.
    match schema::check(&MIGRATOR, &read_applied(connection).await?) {
        Err(SchemaError::Older { .. }) if migrate => {}
        outcome => return outcome,
    }
    if let Some(options) = target.migration {
        migrate_on_own_connection(options, &Place::of(connection, session).await?).await?;
    } else if target.check.mode() == SettingsMode::Transaction {
        return Err(SchemaError::NeedsMigrationUrl);
    } else {
        migrate_on(connection).await?;
    }
    schema::check(&MIGRATOR, &read_applied(connection).await?)
}

/// Migrates the database and schema at `used`.
async fn migrate_on_own_connection(
    options: &PgConnectOptions,
    used: &Place,
) -> Result<(), SchemaError> {
    let check = SessionCheck::new(Arc::default(), Pooler::Detect);
    let mut connection = connect(options, &check).await?;
    let outcome = match check.check_without_timeout(&mut connection).await {
        Ok(_) if check.mode() != SettingsMode::Startup => Err(SchemaError::NeedsMigrationUrl),
        Ok(session) => migrate_place(&mut connection, session, used).await,
        Err(error) => Err(schema::map_error(error.into())),
    };
    close(connection).await;
    outcome
}

async fn migrate_place(
    connection: &mut PgConnection,
    session: Session,
    used: &Place,
) -> Result<(), SchemaError> {
    let found = Place::of(connection, session).await?;
    if !found.may_be(used) {
        return Err(SchemaError::OtherDatabase {
            found: found.name,
            used: used.name.clone(),
        });
    }
    migrate_on(connection).await
}

/// Database and schema in which a connection creates tables.
struct Place {
    name: String,
    /// Identifier of the database cluster; empty if the role may not read it.
    system: String,
}

impl Place {
    /// Reads the names from the server, because a pooler can have other ones.
    async fn of(connection: &mut PgConnection, session: Session) -> Result<Self, SchemaError> {
        let name = raw_sql("SELECT current_database() || coalesce('.' || current_schema(), '')")
            .fetch_one(connection)
            .await
            .and_then(|row| row.try_get(0));
        Ok(Self {
            name: name.map_err(|error| schema::map_error(error.into()))?,
            system: session.system,
        })
    }

    fn may_be(&self, other: &Self) -> bool {
        let is_unknown = self.system.is_empty() || other.system.is_empty();
        self.name == other.name && (is_unknown || self.system == other.system)
    }
}

async fn migrate_on(connection: &mut PgConnection) -> Result<(), SchemaError> {
    raw_sql(NO_TRANSACTION_TIMEOUT)
        .execute(&mut *connection)
        .await
        .map_err(|error| schema::map_error(error.into()))?;
    let migrated = MIGRATOR.run_direct(None, connection, false).await;
    migrated.map_err(schema::map_migration_error)
}

/// Reads the applied migrations. The simple protocol sends each query as one message, which is one
/// transaction of a pooler.
async fn read_applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
    let read = async {
        let exists: bool = raw_sql("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?
            .try_get(0)?;
        if !exists {
            return Ok(Vec::new());
        }
        let applied = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";
        let rows = raw_sql(applied).fetch_all(&mut *connection).await?;
        rows.iter().map(FromRow::from_row).collect()
    };
    let rows: Vec<(i64, Vec<u8>, bool)> =
        read.await.map_err(|e: Error| schema::map_error(e.into()))?;
    schema::applied_migrations(rows)
}
