use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, SqliteConnection,
    migrate::{AppliedMigration, Migrator},
    query_as, query_scalar,
    sqlite::SqliteConnectOptions,
};

use tokio::time::{Instant, sleep};

use super::{codes, connection, search};
use crate::{
    domain::TextSearch,
    store::{
        SchemaError,
        failure::{Cause, Failure},
        schema,
    },
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long to wait for another process that migrates.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);

const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Checks the schema, and brings it up to date where that is wanted.
pub(super) async fn prepare(
    options: &SqliteConnectOptions,
    text_search: TextSearch,
    migrate: bool,
) -> Result<(), SchemaError> {
    if !migrate && !options.get_filename().exists() {
        return schema::compare(&MIGRATOR, &[]);
    }
    if migrate {
        connection::make_file(options.get_filename()).map_err(|error| {
            let cause = Cause::new(format!("the file cannot be made: {error}"));
            SchemaError::Unavailable(cause.into())
        })?;
    }
    let options = connection::for_writing(options.clone()).busy_timeout(MIGRATION_TIMEOUT);
    let mut connection = connect(&options)
        .await
        .map_err(|error| SchemaError::Unavailable(Failure::from(error).cause.into()))?;
    let mut outcome = bring_up(&mut connection, migrate).await;
    if outcome.is_ok() && migrate {
        outcome = index(&mut connection, text_search)
            .await
            .map_err(|error| schema::failed(error.into()));
    }
    // What was done is done, however the goodbye goes.
    let _ = connection.close().await;
    outcome
}

/// Opens the file. Turning its log on does not wait for others who do the same,
/// whatever the time-out says, so it is tried again here.
async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let deadline = Instant::now() + MIGRATION_TIMEOUT;
    loop {
        match options.connect().await {
            Err(error) if codes::is_busy(&error) && Instant::now() < deadline => {
                sleep(BUSY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn bring_up(connection: &mut SqliteConnection, migrate: bool) -> Result<(), SchemaError> {
    match schema::compare(&MIGRATOR, &applied(connection).await?) {
        Err(SchemaError::Older { .. }) if migrate => {}
        outcome => return outcome,
    }
    // The migrator takes no lock on SQLite. This transaction is one: who comes
    // second finds the work done.
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(|error| schema::failed(error.into()))?;
    MIGRATOR
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(schema::migration_failed)?;
    transaction
        .commit()
        .await
        .map_err(|error| schema::failed(error.into()))?;
    schema::compare(&MIGRATOR, &applied(connection).await?)
}

/// Makes the index of what messages say anew where another one is wanted. The
/// transaction lets one of several do it.
async fn index(connection: &mut SqliteConnection, text_search: TextSearch) -> sqlx::Result<()> {
    if search::is_indexed(connection, text_search).await? {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if !search::is_indexed(&mut transaction, text_search).await? {
        search::index(&mut transaction, text_search).await?;
    }
    transaction.commit().await
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
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
        .map_err(|error: sqlx::Error| schema::failed(error.into()))?;
    schema::applied(rows)
}
