use std::time::Duration;

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{AppliedMigration, Migrator},
    postgres::PgConnectOptions,
    query_as, query_scalar,
};
use tokio::time::timeout;

use super::connection::check_options;
use crate::store::{
    SchemaError,
    failure::{Cause, Failure},
    schema,
};

static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Checks the schema, and brings it up to date where that is wanted.
///
/// On a connection of its own, without a limit on statements: whoever comes
/// second waits for the first one's lock for as long as that one migrates. The
/// lock belongs to the session and must not stay behind in a pool.
pub(super) async fn prepare(options: &PgConnectOptions, migrate: bool) -> Result<(), SchemaError> {
    let options = options.clone().options([("statement_timeout", "0")]);
    let mut connection = match timeout(CONNECT_LIMIT, options.connect()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(SchemaError::Unavailable(Failure::from(error).cause.into())),
        Err(_) => {
            let cause = Cause::new("the server did not answer in time");
            return Err(SchemaError::Unavailable(cause.into()));
        }
    };
    let outcome = match check_options(&mut connection).await {
        Ok(()) => bring_up(&mut connection, migrate).await,
        Err(error) => Err(schema::failed(error.into())),
    };
    // What was done is done, however the goodbye goes.
    let _ = timeout(CONNECT_LIMIT, connection.close()).await;
    outcome
}

async fn bring_up(connection: &mut PgConnection, migrate: bool) -> Result<(), SchemaError> {
    // Looked at first, a schema that is right needs no right to change it.
    match schema::compare(&MIGRATOR, &applied(connection).await?) {
        Err(SchemaError::Older { .. }) if migrate => {}
        outcome => return outcome,
    }
    MIGRATOR
        .run_direct(None, connection, false)
        .await
        .map_err(schema::migration_failed)?;
    schema::compare(&MIGRATOR, &applied(connection).await?)
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, SchemaError> {
    let read = async {
        let there: bool = query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await?;
        if !there {
            return Ok(Vec::new());
        }
        query_as("SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
    };
    let rows: Vec<(i64, Vec<u8>, bool)> = read.await.map_err(|e| schema::failed(e.into()))?;
    schema::applied(rows)
}
