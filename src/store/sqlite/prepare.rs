use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::{AppliedMigration, Migrator},
    query_as, query_scalar,
    sqlite::SqliteConnectOptions,
};

use tokio::time::{Instant, sleep};

use super::{
    connection,
    pending_removals::{self, Leftover},
    result_codes,
};
use crate::{
    os_error,
    store::{
        SchemaError,
        operation_error::{BackendError, Cause},
        schema,
    },
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// Maximum time to wait for another process that migrates.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between two attempts to open a file that is locked.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// Checks the schema and, if `migrate` is set, migrates it. Returns the messages that are to be deleted.
pub(super) async fn prepare(
    options: &SqliteConnectOptions,
    migrate: bool,
) -> Result<Vec<Leftover>, SchemaError> {
    if !migrate && !options.get_filename().exists() {
        return schema::check(&MIGRATOR, &[]).map(|()| Vec::new());
    }
    if migrate {
        connection::create_file(options.get_filename()).map_err(|error| {
            let file = options.get_filename().display();
            let cause = os_error::describe(&error);
            let cause = Cause::new(format!("cannot create {file}: {cause}"));
            SchemaError::Unavailable(cause.into())
        })?;
    }
    let options = connection::writer_options(options.clone()).busy_timeout(MIGRATION_TIMEOUT);
    let mut connection = connect(&options)
        .await
        .map_err(|error| SchemaError::Unavailable(BackendError::from(error).cause.into()))?;
    let outcome = check_or_migrate(&mut connection, migrate).await;
    let left = match outcome {
        Ok(()) => pending_removals::read(&mut connection)
            .await
            .map_err(|error| schema::map_error(error.into())),
        Err(error) => Err(error),
    };
    // An error while closing does not change the outcome.
    let _ = connection.close().await;
    left
}

/// Opens the file. Switching to the write-ahead log does not wait for another process that does
/// the same, regardless of the busy timeout, so it is retried here.
async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let deadline = Instant::now() + MIGRATION_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if result_codes::is_busy(&error) && Instant::now() < deadline => {
                sleep(BUSY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

async fn check_or_migrate(
    connection: &mut SqliteConnection,
    migrate: bool,
) -> Result<(), SchemaError> {
    match schema::check(&MIGRATOR, &read_applied(connection).await?) {
        Err(SchemaError::Older { .. }) if migrate => {}
        outcome => return outcome,
    }
    // The migrator takes no lock on SQLite, so this transaction serves as one: a second
    // process finds the schema migrated.
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(|error| schema::map_error(error.into()))?;
    MIGRATOR
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(schema::map_migration_error)?;
    transaction
        .commit()
        .await
        .map_err(|error| schema::map_error(error.into()))?;
    schema::check(&MIGRATOR, &read_applied(connection).await?)
}

async fn read_applied(
    connection: &mut SqliteConnection,
) -> Result<Vec<AppliedMigration>, SchemaError> {
    let read = async {
        let tables: i64 = query_scalar(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
        )
        .fetch_one(&mut *connection)
        .await?;
        if tables == 0 {
            return Ok(Vec::new());
        }
        query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
    };
    let rows: Vec<(i64, Vec<u8>, bool)> = read
        .await
        .map_err(|error: sqlx::Error| schema::map_error(error.into()))?;
    schema::applied_migrations(rows)
}
