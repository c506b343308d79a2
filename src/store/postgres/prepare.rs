use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, PgConnection, Row as _,
    migrate::{AppliedMigration, Migrator},
    postgres::PgConnectOptions,
    query_as, query_scalar, raw_sql,
};
use tokio::time::timeout;
use tracing::{info, warn};

use super::session_check::{self, Session, SessionCheck};
use crate::store::{
    SchemaError,
    operation_error::{BackendError, Cause},
    schema,
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// First supported version, as `server_version_num` reports it.
const MIN_VERSION: i32 = 140_000;

/// Time limit of connecting, and of closing the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the schema and, if `migrate` is set, migrates it.
///
/// This uses a separate connection without a statement timeout: a second process waits for the
/// lock of the first one for as long as that one migrates. The lock belongs to the session and
/// must not remain in a pool.
pub(super) async fn prepare(
    options: &PgConnectOptions,
    check: &SessionCheck,
    migrate: bool,
) -> Result<(), SchemaError> {
    let options = options.clone().options([("statement_timeout", "0")]);
    let mut connection = match timeout(CONNECT_TIMEOUT, options.connect()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return Err(SchemaError::Unavailable(
                BackendError::from(error).cause.into(),
            ));
        }
        Err(_) => {
            let cause = Cause::new("the server did not respond in time");
            return Err(SchemaError::Unavailable(cause.into()));
        }
    };
    let outcome = check_all(&mut connection, check, migrate).await;
    // An error while closing does not change the outcome.
    let _ = timeout(CONNECT_TIMEOUT, connection.close()).await;
    outcome
}

async fn check_all(
    connection: &mut PgConnection,
    check: &SessionCheck,
    migrate: bool,
) -> Result<(), SchemaError> {
    check_version(connection).await?;
    check_encoding(connection).await?;
    match check.check_without_timeout(connection).await {
        Ok(session) => {
            warn_about(&session);
            check_or_migrate(connection, migrate).await
        }
        Err(error) => Err(schema::map_error(error.into())),
    }
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

async fn check_or_migrate(connection: &mut PgConnection, migrate: bool) -> Result<(), SchemaError> {
    // Checked first, because a role without the right to migrate can use a current schema.
    match schema::check(&MIGRATOR, &read_applied(connection).await?) {
        Err(SchemaError::Older { .. }) if migrate => {}
        outcome => return outcome,
    }
    MIGRATOR
        .run_direct(None, connection, false)
        .await
        .map_err(schema::map_migration_error)?;
    schema::check(&MIGRATOR, &read_applied(connection).await?)
}

async fn read_applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
    let read = async {
        let exists: bool = query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
        if !exists {
            return Ok(Vec::new());
        }
        query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
    };
    let rows: Vec<(i64, Vec<u8>, bool)> = read.await.map_err(|e| schema::map_error(e.into()))?;
    schema::applied_migrations(rows)
}
