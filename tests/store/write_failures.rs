//! Writes that fail halfway. Each write maps to the error that the contract names,
//! leaves the data unchanged, and succeeds as soon as the fault is over.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use conversation_memory::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, IdSource as _, Message,
        NewConversation, NumberedMessage, SessionId, TextSearch, UuidV7,
    },
    store::{
        Append, Branch, ConversationQuery, Store, StoreError, postgres::PostgresStore,
        sqlite::SqliteStore,
    },
};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, SqliteConnection, query, raw_sql,
    sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

use test_support::world::{
    World, at, message, new_conversation, session, title, truncation, turn, with_request_id,
};

use crate::{branches::branch_of, postgres::empty_schema};

/// Fault that a [`FaultyStore`] injects into every write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
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
struct FaultyStore {
    /// Store whose writes fail while the fault is injected.
    faulty: Arc<dyn Store>,
    /// Second store on the same data, which prepares and checks it.
    healthy: World,
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
    /// Opens an empty store of the same kind as `world`.
    async fn like(world: &World, fault: Fault) -> Self {
        if world.is_sqlite() {
            Self::sqlite(fault).await
        } else {
            Self::postgres(fault).await
        }
    }

    async fn sqlite(fault: Fault) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.db");
        let healthy = World::prepared(SqliteStore::open(&file).unwrap()).await;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .busy_timeout(Duration::from_millis(50));
        let options = match fault {
            // The limit is raised to the size that the file has when it is opened.
            Fault::DiskFull => options.pragma("max_page_count", "1"),
            Fault::ReadOnly => options.pragma("query_only", "ON"),
            Fault::Busy | Fault::ConnectionLost | Fault::RolledBack => options,
        };
        let store = SqliteStore::with_options(options, TextSearch::default()).unwrap();
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
        let healthy = World::prepared(PostgresStore::new(options.clone(), 2)).await;
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
    fn store(&self) -> &dyn Store {
        let is_healed = self.fault == Fault::ReadOnly && !self.is_injected;
        if is_healed && matches!(self.injector, Injector::Sqlite { .. }) {
            &*self.healthy.store
        } else {
            &*self.faulty
        }
    }

    async fn inject(&mut self) {
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

    async fn clear(&mut self) {
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

/// Kind of write of the trait `Store`.
#[derive(Clone, Copy, Debug)]
enum Write {
    Append,
    AttachSession,
    Branch,
    Create,
    Delete,
    Import,
    Truncate,
    Update,
}

impl Write {
    const ALL: [Self; 8] = [
        Self::Append,
        Self::AttachSession,
        Self::Branch,
        Self::Create,
        Self::Delete,
        Self::Import,
        Self::Truncate,
        Self::Update,
    ];

    async fn run(self, store: &dyn Store, subject: &Subject) -> Result<(), StoreError> {
        let conversation = &subject.conversation;
        match self {
            Self::Append => store.append(&subject.append).await.map(drop),
            Self::AttachSession => {
                let attached = store.attach_session(conversation, subject.session).await;
                attached.map(drop)
            }
            Self::Branch => store.branch(&subject.branch).await.map(drop),
            Self::Create => store.create(&subject.created, at(0)).await.map(drop),
            Self::Delete => store.delete(conversation).await,
            Self::Import => {
                let mut import = store.import(&subject.imported).await?;
                let message = message("imported");
                import.add(&[NumberedMessage { seq: 1, message }]).await?;
                import.finish(1).await.map(drop)
            }
            Self::Truncate => {
                let truncated = store.truncate(&truncation(conversation, 1)).await;
                truncated.map(drop)
            }
            Self::Update => {
                let changes = ConversationChanges {
                    title: Some(Some(title("changed"))),
                    metadata: None,
                };
                let updated = store.update(conversation, &changes, at(5)).await;
                updated.map(drop)
            }
        }
    }
}

/// Conversation of two messages that every [`Write`] can be applied to.
struct Subject {
    conversation: ConversationRef,
    append: Append,
    branch: Branch,
    created: NewConversation,
    imported: Conversation,
    session: SessionId,
}

/// All data of a user that a write could have changed.
#[derive(Debug, PartialEq)]
struct State {
    conversations: Vec<Conversation>,
    messages: Vec<Vec<Message>>,
    with_session: Option<ConversationId>,
}

impl Subject {
    async fn new(world: &World) -> Self {
        let conversation = world.create_conversation().await;
        world.append_texts(&conversation, &["one", "two"]).await;
        let stored = world.store.get(&conversation).await.unwrap();
        Self {
            append: with_request_id(turn(&conversation, &["three", "four"]), "key"),
            branch: branch_of(&conversation, 1),
            created: new_conversation(&stored.user_id),
            imported: Conversation {
                id: ConversationId::from_uuid(UuidV7.uuid()),
                last_seq: 0,
                ..stored
            },
            conversation,
            session: session(),
        }
    }

    async fn state(&self, world: &World) -> State {
        let user_id = self.conversation.user_id.clone().unwrap();
        let with_session = world
            .store
            .conversation_of_session(self.session, &user_id)
            .await
            .unwrap();
        let query = ConversationQuery {
            user_id,
            dept_id: None,
            after: None,
            limit: 10,
        };
        let conversations = world.store.list(&query).await.unwrap().conversations;
        let mut messages = Vec::new();
        for Conversation { id, user_id, .. } in &conversations {
            let conversation = ConversationRef {
                id: *id,
                user_id: Some(user_id.clone()),
            };
            messages.push(world.all_messages(&conversation).await);
        }
        State {
            conversations,
            messages,
            with_session: with_session.map(|conversation| conversation.id),
        }
    }
}

/// Runs each kind of write while the fault is injected, and again after it.
async fn assert_writes_fail(
    world: &World,
    fault: Fault,
    is_expected: impl Fn(Write, &StoreError) -> bool,
) {
    let mut faulty = FaultyStore::like(world, fault).await;
    for write in Write::ALL {
        let subject = Subject::new(&faulty.healthy).await;
        let before = subject.state(&faulty.healthy).await;
        faulty.inject().await;
        let failed = write.run(faulty.store(), &subject).await;
        faulty.clear().await;
        let Err(error) = failed else {
            panic!("{fault:?}, {write:?}: the write succeeded");
        };
        assert!(
            is_expected(write, &error),
            "{fault:?}, {write:?}: {error:?}"
        );
        let after = subject.state(&faulty.healthy).await;
        assert_eq!(after, before, "{fault:?}, {write:?}");
        let retried = write.run(faulty.store(), &subject).await;
        assert!(retried.is_ok(), "{fault:?}, {write:?}: {retried:?}");
        let after = subject.state(&faulty.healthy).await;
        assert_ne!(after, before, "{fault:?}, {write:?}");
    }
}

fn is_unavailable(_: Write, error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_))
}

pub(crate) async fn busy_store_rejects_each_write(world: &World) {
    assert_writes_fail(world, Fault::Busy, is_unavailable).await;
}

pub(crate) async fn full_disk_rejects_each_write(world: &World) {
    assert_writes_fail(world, Fault::DiskFull, is_unavailable).await;
}

pub(crate) async fn read_only_store_rejects_each_write(world: &World) {
    assert_writes_fail(world, Fault::ReadOnly, is_unavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_writes_again_after_it_rolled_a_transaction_back() {
    let world = World::sqlite().await;
    let is_internal = |_, error: &StoreError| matches!(error, StoreError::Internal(_));
    assert_writes_fail(&world, Fault::RolledBack, is_internal).await;
}

/// A single statement in autocommit mode may have been committed before its
/// connection was lost. A transaction whose COMMIT was not sent has not.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connection_leaves_only_autocommitted_writes_unknown() {
    let world = World::postgres().await;
    let is_expected = |write: Write, error: &StoreError| match write {
        Write::Append | Write::AttachSession | Write::Create | Write::Update => {
            matches!(error, StoreError::OutcomeUnknown(_))
        }
        Write::Branch | Write::Delete | Write::Import | Write::Truncate => {
            is_unavailable(write, error)
        }
    };
    assert_writes_fail(&world, Fault::ConnectionLost, is_expected).await;
}
