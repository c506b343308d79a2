//! A store whose writes fail on demand, on each backend.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use conversation_memory::store::{Store, postgres::PostgresStore, sqlite::SqliteStore};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, SqliteConnection, query, raw_sql,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use test_support::store_fixture::StoreFixture;

use crate::postgres::empty_schema;

/// Fault that a [`FaultyStore`] injects into every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another writer holds the lock for longer than a write waits.
    Busy,
    /// The disk is full.
    DiskFull,
    /// The store accepts no writes.
    ReadOnly,
    /// The connection ends before the write is acknowledged. PostgreSQL only.
    ConnectionLost,
    /// SQLite rolls the whole transaction back, as it can do on any I/O error.
    RolledBack,
}

/// A store whose writes fail on demand.
pub(crate) struct FaultyStore {
    /// Store whose writes fail while the fault is injected.
    faulty: Arc<dyn Store>,
    /// Second store on the same data, which prepares and checks it.
    pub(crate) healthy: StoreFixture,
    fault: Fault,
    is_injected: bool,
    injector: Injector,
}

enum Injector {
    Sqlite {
        file: PathBuf,
        lock: Option<SqliteConnection>,
        _folder: TempDir,
    },
    Postgres(PgConnection),
}

/// Grows the file by more than its free pages whenever a conversation is written,
/// which fails with `SQLITE_FULL` on a connection that limits the number of pages.
const GROW_ON_WRITE: &str = "
CREATE TABLE ballast (bytes BLOB);
INSERT INTO ballast VALUES (zeroblob(1000000));
DELETE FROM ballast;
CREATE TRIGGER grow_on_insert AFTER INSERT ON conversations BEGIN
    INSERT INTO ballast VALUES (zeroblob(4000000));
END;
CREATE TRIGGER grow_on_update AFTER UPDATE ON conversations BEGIN
    INSERT INTO ballast VALUES (zeroblob(4000000));
END;
CREATE TRIGGER grow_on_delete AFTER DELETE ON conversations BEGIN
    INSERT INTO ballast VALUES (zeroblob(4000000));
END";

const STOP_GROWING: &str = "
DROP TRIGGER grow_on_insert;
DROP TRIGGER grow_on_update;
DROP TRIGGER grow_on_delete;
DROP TABLE ballast";

const ROLL_BACK_WRITES: &str = "
CREATE TRIGGER roll_back_insert BEFORE INSERT ON conversations BEGIN
    SELECT RAISE(ROLLBACK, 'injected fault');
END;
CREATE TRIGGER roll_back_update BEFORE UPDATE ON conversations BEGIN
    SELECT RAISE(ROLLBACK, 'injected fault');
END;
CREATE TRIGGER roll_back_delete BEFORE DELETE ON conversations BEGIN
    SELECT RAISE(ROLLBACK, 'injected fault');
END";

const STOP_ROLLING_BACK: &str = "
DROP TRIGGER roll_back_insert;
DROP TRIGGER roll_back_update;
DROP TRIGGER roll_back_delete";

/// Ends every statement that writes a conversation with the SQLSTATE in
/// `injected_fault`, or its connection where that is 'lost'.
const FAIL_WRITES: &str = "
CREATE TABLE injected_fault (sqlstate text NOT NULL);
CREATE FUNCTION inject_fault() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    state text := (SELECT f.sqlstate FROM injected_fault f);
BEGIN
    IF state = 'lost' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
        PERFORM pg_sleep(5);
    ELSIF state IS NOT NULL THEN
        RAISE EXCEPTION 'injected fault' USING ERRCODE = state;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inject_fault AFTER INSERT OR UPDATE OR DELETE ON conversations
    FOR EACH STATEMENT EXECUTE FUNCTION inject_fault()";

impl FaultyStore {
    /// Opens an empty store of the same kind as `fixture`.
    pub(crate) async fn like(fixture: &StoreFixture, fault: Fault) -> Self {
        if fixture.is_sqlite() {
            Self::sqlite(fault).await
        } else {
            Self::postgres(fault).await
        }
    }

    async fn sqlite(fault: Fault) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.db");
        let healthy = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .busy_timeout(Duration::from_millis(50));
        let options = match fault {
            // The limit is raised to the size that the file has when it is opened.
            Fault::DiskFull => options.pragma("max_page_count", "1"),
            Fault::ReadOnly => options.pragma("query_only", "ON"),
            Fault::Busy | Fault::ConnectionLost | Fault::RolledBack => options,
        };
        let store = SqliteStore::with_options(
            options,
            conversation_memory::text_analysis::Languages::default(),
        )
        .unwrap();
        Self {
            faulty: Arc::new(store),
            healthy,
            fault,
            is_injected: false,
            injector: Injector::Sqlite {
                file,
                lock: None,
                _folder: folder,
            },
        }
    }

    async fn postgres(fault: Fault) -> Self {
        let options = empty_schema().await;
        let healthy = StoreFixture::prepared(PostgresStore::new(options.clone(), 2)).await;
        let mut connection = options.connect().await.unwrap();
        raw_sql(FAIL_WRITES).execute(&mut connection).await.unwrap();
        Self {
            faulty: Arc::new(PostgresStore::new(options, 2)),
            healthy,
            fault,
            is_injected: false,
            injector: Injector::Postgres(connection),
        }
    }

    /// Store under test. A connection that was opened as read-only stays so:
    /// without the fault, it is the healthy one.
    pub(crate) fn store(&self) -> &dyn Store {
        let is_healed = self.fault == Fault::ReadOnly && !self.is_injected;
        if is_healed && matches!(self.injector, Injector::Sqlite { .. }) {
            &*self.healthy.store
        } else {
            &*self.faulty
        }
    }

    pub(crate) async fn inject(&mut self) {
        self.is_injected = true;
        match (&mut self.injector, self.fault) {
            (Injector::Sqlite { file, lock, .. }, Fault::Busy) => {
                *lock = Some(raw(file, "BEGIN IMMEDIATE").await);
            }
            (Injector::Sqlite { file, .. }, Fault::DiskFull) => {
                raw(file, GROW_ON_WRITE).await;
            }
            (Injector::Sqlite { file, .. }, Fault::RolledBack) => {
                raw(file, ROLL_BACK_WRITES).await;
            }
            (Injector::Sqlite { .. }, Fault::ReadOnly) => {}
            (Injector::Postgres(connection), fault) => {
                let sqlstate = match fault {
                    Fault::Busy => "55P03",
                    Fault::DiskFull => "53100",
                    Fault::ReadOnly => "25006",
                    Fault::ConnectionLost => "lost",
                    Fault::RolledBack => panic!("PostgreSQL keeps the transaction open"),
                };
                let insert = query("INSERT INTO injected_fault VALUES ($1)").bind(sqlstate);
                insert.execute(connection).await.unwrap();
            }
            (Injector::Sqlite { .. }, Fault::ConnectionLost) => {
                panic!("SQLite has no connection to lose")
            }
        }
    }

    pub(crate) async fn clear(&mut self) {
        self.is_injected = false;
        match (&mut self.injector, self.fault) {
            (Injector::Sqlite { file, .. }, Fault::DiskFull) => {
                raw(file, STOP_GROWING).await;
            }
            (Injector::Sqlite { file, .. }, Fault::RolledBack) => {
                raw(file, STOP_ROLLING_BACK).await;
            }
            (Injector::Sqlite { lock, .. }, _) => {
                if let Some(lock) = lock.take() {
                    lock.close().await.unwrap();
                }
            }
            (Injector::Postgres(connection), _) => {
                let delete = query("DELETE FROM injected_fault");
                delete.execute(connection).await.unwrap();
            }
        }
    }
}

/// Executes statements on a connection of its own, which it returns.
async fn raw(file: &Path, statements: &'static str) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = options.connect().await.unwrap();
    let executed = raw_sql(statements).execute(&mut connection);
    executed.await.unwrap();
    connection
}
