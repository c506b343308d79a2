//! PostgreSQL servers that change their settings or their role, or stop responding.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use conversation_memory::{
    domain::{ConversationRef, NumberedMessage},
    store::{
        Appended, Bound, ConversationQuery, Invalidation, MinState, Store, StoreError,
        postgres::{Pooler, PostgresStore},
    },
    text_analysis::Languages,
};
use futures_util::future::join_all;
use sqlx::{Connection as _, postgres::PgConnectOptions, query, query_scalar, raw_sql};
use test_support::{
    eventually,
    postgres_server::PostgresServer,
    stopwatch::Stopwatch,
    store_fixture::{
        append_of, at, message, new_conversation, owned_ref, retry_of, truncation, turn, user,
        with_chosen_id, with_request_id,
    },
    tcp_proxy::TcpProxy,
};
use tokio::time::sleep;

use crate::{branches::branch_of, imports::imported, search::query as query_of};

/// Separates the two seconds in which a call notices that the server does not respond from the
/// limits of a call whose server responds, the shortest of which is five seconds.
const NOTICED: Duration = Duration::from_millis(3_500);

/// Ways to make a server read-only, each with its reversal.
const READ_ONLY: [(&str, &str); 3] = [
    (
        "ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()",
        "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()",
    ),
    (
        "ALTER DATABASE postgres SET default_transaction_read_only = on",
        "ALTER DATABASE postgres RESET default_transaction_read_only",
    ),
    (
        "ALTER ROLE postgres SET default_transaction_read_only = on",
        "ALTER ROLE postgres RESET default_transaction_read_only",
    ),
];

async fn prepared(url: &str, connections: u32) -> PostgresStore {
    let store = PostgresStore::new(url.parse().unwrap(), connections);
    store.prepare(true).await.unwrap();
    store
}

async fn create_conversation(store: &PostgresStore) -> ConversationRef {
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    owned_ref(&new)
}

/// Executes statements as an administrator.
async fn administer(server: &PostgresServer, statements: &'static str) {
    let mut connection = server.connect().await;
    for statement in statements.split("; ") {
        query("SET default_transaction_read_only = off")
            .execute(&mut connection)
            .await
            .unwrap();
        raw_sql(statement).execute(&mut connection).await.unwrap();
    }
}

/// Closes all connections of other clients, and opens them again with the settings of now.
async fn reopen_connections(
    server: &PostgresServer,
    store: &PostgresStore,
    conversation: &ConversationRef,
) {
    let mut connection = server.connect().await;
    query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let reads = join_all((0..8).map(|_| store.get(conversation))).await;
    assert!(reads.iter().all(Result::is_ok), "{reads:?}");
}

fn is_unavailable<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Unavailable(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_succeed_again_after_the_server_was_read_only() {
    let server = PostgresServer::start().await;
    let store = prepared(&server.url(), 4).await;
    let conversation = create_conversation(&store).await;
    store
        .append(&turn(&conversation, &["one", "two"]))
        .await
        .unwrap();
    for (read_only, writable) in READ_ONLY {
        administer(&server, read_only).await;
        reopen_connections(&server, &store, &conversation).await;
        for _ in 0..3 {
            let refused = store.append(&turn(&conversation, &["refused"])).await;
            assert!(is_unavailable(&refused), "{read_only}: {refused:?}");
            let refused = store.truncate(&truncation(&conversation, 1)).await;
            assert!(is_unavailable(&refused), "{read_only}: {refused:?}");
            let refused = store.import(&imported(user())).await;
            assert!(refused.is_err(), "{read_only}");
            assert_eq!(store.get(&conversation).await.unwrap().last_seq, 2);
        }
        administer(&server, writable).await;
        eventually("the store accepts writes", async || {
            let branched = store.branch(&branch_of(&conversation, 1)).await;
            assert!(branched.is_ok() || is_unavailable(&branched));
            branched.is_ok()
        })
        .await;
        // The connections that are older were closed.
        let created = join_all((0..8).map(|_| create_conversation(&store))).await;
        for conversation in created {
            store
                .append(&turn(&conversation, &["saved"]))
                .await
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_read_only_state_does_not_open_a_connection_for_each_write() {
    let server = PostgresServer::start().await;
    let store = prepared(&server.url(), 2).await;
    let conversation = create_conversation(&store).await;
    administer(&server, READ_ONLY[1].0).await;
    let sessions = async || -> i64 {
        let mut admin = server.connect().await;
        query_scalar("SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'")
            .fetch_one(&mut admin)
            .await
            .unwrap()
    };
    reopen_connections(&server, &store, &conversation).await;
    let before = sessions().await;
    let writes = 300;
    for _ in 0..writes {
        let refused = store.append(&turn(&conversation, &["refused"])).await;
        assert!(is_unavailable(&refused), "{refused:?}");
    }
    let opened = sessions().await - before;
    assert!(
        opened < writes / 3,
        "{opened} connections for {writes} writes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_is_unavailable_until_it_is_promoted() {
    let primary = PostgresServer::start().await;
    let writer = prepared(&primary.url(), 2).await;
    let conversation = create_conversation(&writer).await;
    let standby = primary.start_standby().await;
    let store = PostgresStore::new(standby.url().parse().unwrap(), 2);
    let refused = store.prepare(false).await.unwrap_err();
    assert!(
        refused.with_cause().contains("the server is a standby"),
        "{refused:?}"
    );
    // A standby that lags would answer with old data.
    let refused = store.get(&conversation).await;
    let Err(StoreError::Unavailable(cause)) = &refused else {
        panic!("{refused:?}");
    };
    assert!(
        cause.to_string().contains("the server is a standby"),
        "{cause}"
    );
    drop(primary);
    standby.promote().await;
    eventually("the promoted server is used", async || {
        store.append(&turn(&conversation, &["one"])).await.is_ok()
    })
    .await;
    store.prepare(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_saves_survive_a_crash_whatever_the_default_of_synchronous_commit() {
    let defaults = [
        "ALTER SYSTEM SET synchronous_commit = off; SELECT pg_reload_conf()",
        "ALTER DATABASE postgres SET synchronous_commit = off",
        "ALTER ROLE postgres SET synchronous_commit = off",
    ];
    let mut server = PostgresServer::start().await;
    // Commits that do not wait for the disk stay in memory.
    administer(
        &server,
        "ALTER SYSTEM SET wal_writer_delay = '10s'; SELECT pg_reload_conf()",
    )
    .await;
    let store = prepared(&server.url(), 2).await;
    let conversation = create_conversation(&store).await;
    let mut last_seq = 0;
    for default in defaults {
        // One connection is older than the default, and one is newer.
        administer(&server, default).await;
        for is_newer in [false, true] {
            if is_newer {
                reopen_connections(&server, &store, &conversation).await;
            }
            store.append(&turn(&conversation, &["kept"])).await.unwrap();
            last_seq += 1;
            server.kill();
            server.run().await;
            eventually("the save is read", async || {
                let read = store.get(&conversation).await;
                read.is_ok_and(|found| {
                    assert_eq!(found.last_seq, last_seq, "{default}, {is_newer}");
                    true
                })
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_synchronous_commit_that_are_durable_are_kept() {
    let server = PostgresServer::start().await;
    for (value, expected) in [
        ("local", "local"),
        ("remote_write", "remote_write"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
        ("off", "on"),
    ] {
        let url = format!("{}?options=-c%20synchronous_commit%3D{value}", server.url());
        let store = prepared(&url, 1).await;
        let conversation = create_conversation(&store).await;
        // The session's value is recorded with each conversation that it changes.
        let mut admin = server.connect().await;
        raw_sql(
            "CREATE OR REPLACE FUNCTION record_value() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN NEW.title = current_setting('synchronous_commit'); RETURN NEW; END $$; \
             CREATE OR REPLACE TRIGGER record_value BEFORE UPDATE ON conversations \
             FOR EACH ROW EXECUTE FUNCTION record_value()",
        )
        .execute(&mut admin)
        .await
        .unwrap();
        store.append(&turn(&conversation, &["one"])).await.unwrap();
        let title = store.get(&conversation).await.unwrap().title.unwrap();
        assert_eq!(title.as_str(), expected);
    }
}

/// Faults after which a server does not respond, although no connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Suspended,
    PacketsHeld,
}

/// Server that becomes silent, and a store that reaches it through a proxy.
struct SilentServer {
    server: PostgresServer,
    proxy: TcpProxy,
    store: PostgresStore,
}

impl SilentServer {
    async fn start(connections: u32) -> Self {
        let server = PostgresServer::start().await;
        let proxy = TcpProxy::start(([127, 0, 0, 1], server.port()).into()).await;
        let url = format!("postgres://postgres@{}/postgres", proxy.address());
        let store = prepared(&url, connections).await;
        Self {
            server,
            proxy,
            store,
        }
    }

    fn begin(&self, silence: Silence) {
        match silence {
            Silence::Suspended => self.server.freeze(),
            Silence::PacketsHeld => self.proxy.hold(),
        }
    }

    fn end(&self, silence: Silence) {
        match silence {
            Silence::Suspended => self.server.thaw(),
            Silence::PacketsHeld => self.proxy.forward(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_silent_server_end_soon_and_it_is_used_again_afterwards() {
    for silence in [Silence::Suspended, Silence::PacketsHeld] {
        let silent = SilentServer::start(16).await;
        let store = &silent.store;
        let conversation = create_conversation(store).await;
        let repeatable = with_request_id(turn(&conversation, &["repeatable"]), "key");
        store
            .append(&turn(&conversation, &["one", "two"]))
            .await
            .unwrap();
        // All connections are open.
        join_all((0..16).map(|_| store.get(&conversation))).await;
        let (_, mut snapshot) = store.snapshot(&conversation).await.unwrap();
        let mut import = store.import(&imported(user())).await.unwrap();
        let unfinished = store.import(&imported(user())).await.unwrap();

        silent.begin(silence);
        let started = Stopwatch::start();
        let list = ConversationQuery {
            user_id: conversation.user_id.clone().unwrap(),
            dept_id: None,
            after: None,
            state: MinState::ANY,
            limit: 10,
        };
        let search = query_of(conversation.user_id.as_ref().unwrap(), "one");
        let added = [NumberedMessage {
            seq: 1,
            message: message("added"),
        }];
        let reads = async {
            let (one, two, three, four, five, six) = tokio::join!(
                async { store.get(&conversation).await.map(drop) },
                async { store.newest(&conversation, 5, true).await.map(drop) },
                async {
                    let page = store.messages(&conversation, Bound::After(0), 5, true);
                    page.await.map(drop)
                },
                async { store.list(&list).await.map(drop) },
                async { store.search(&search).await.map(drop) },
                async { snapshot.after(0, 5).await.map(drop) },
            );
            [one, two, three, four, five, six]
        };
        // Nothing of these is written before the COMMIT, which is not sent.
        let transactions = async {
            let branch = branch_of(&conversation, 1);
            let removal = truncation(&conversation, 1);
            let (one, two, three, four, five) = tokio::join!(
                async { store.delete(&conversation, Invalidation::Never).await },
                async { store.truncate(&removal).await.map(drop) },
                async { store.branch(&branch).await.map(drop) },
                async { import.add(&added).await },
                async { unfinished.finish(0).await.map(drop) },
            );
            [one, two, three, four, five]
        };
        let plain = turn(&conversation, &["plain"]);
        let saves = async {
            tokio::join!(async { store.append(&repeatable).await.map(drop) }, async {
                store.append(&plain).await.map(drop)
            },)
        };
        let (reads, transactions, (repeated, tested)) = tokio::join!(reads, transactions, saves);
        let elapsed = started.elapsed();
        assert!(elapsed < NOTICED, "{silence:?}: {elapsed:?}");
        assert!(reads.iter().all(is_unavailable), "{silence:?}: {reads:?}");
        assert!(
            transactions.iter().all(is_unavailable),
            "{silence:?}: {transactions:?}"
        );
        assert!(
            matches!(repeated, Err(StoreError::OutcomeUnknown(_))),
            "{silence:?}: {repeated:?}"
        );
        // Its connection was tested before anything was sent, because a retry is not recognized.
        assert!(is_unavailable(&tested), "{silence:?}: {tested:?}");
        // Later calls find no connection.
        let started = Stopwatch::start();
        let refused = join_all((0..4).map(|_| store.get(&conversation))).await;
        assert!(refused.iter().all(is_unavailable), "{refused:?}");
        assert!(started.elapsed() < NOTICED, "{silence:?}");

        silent.end(silence);
        eventually("the server is used again", async || {
            store.append(&repeatable).await.is_ok()
        })
        .await;
        eventually("the server keeps up with concurrent calls", async || {
            let reads = join_all((0..16).map(|_| store.get(&conversation))).await;
            reads.iter().all(Result::is_ok)
        })
        .await;
        let stored = store.get(&conversation).await.unwrap();
        assert_eq!(stored.last_seq, 3, "{silence:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_that_a_silent_server_does_not_acknowledge_has_an_unknown_outcome() {
    let silent = SilentServer::start(2).await;
    let store = &silent.store;
    let conversation = create_conversation(store).await;
    store.append(&turn(&conversation, &["one"])).await.unwrap();
    // A deferred trigger is executed by the COMMIT, and waits there.
    let mut admin = silent.server.connect().await;
    raw_sql(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER wait AFTER DELETE ON conversations DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION wait(); SELECT pg_advisory_lock(1)",
    )
    .execute(&mut admin)
    .await
    .unwrap();
    let started = Stopwatch::start();
    let (deleted, ()) = tokio::join!(store.delete(&conversation, Invalidation::Never), async {
        let mut observer = silent.server.connect().await;
        eventually("the COMMIT waits", async || {
            query_scalar::<_, bool>(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity \
                 WHERE query = 'COMMIT' AND wait_event_type = 'Lock')",
            )
            .fetch_one(&mut observer)
            .await
            .unwrap()
        })
        .await;
        silent.begin(Silence::PacketsHeld);
    });
    assert!(
        matches!(deleted, Err(StoreError::OutcomeUnknown(_))),
        "{deleted:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    admin.close().await.unwrap();
    silent.end(Silence::PacketsHeld);
    eventually("the deletion was committed", async || {
        matches!(store.get(&conversation).await, Err(StoreError::NotFound))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn save_that_waits_for_a_lock_of_a_server_that_runs_is_completed() {
    let silent = SilentServer::start(2).await;
    let store = &silent.store;
    let conversation = create_conversation(store).await;
    let mut admin = silent.server.connect().await;
    let mut lock = admin.begin().await.unwrap();
    query("SELECT 1 FROM conversations FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    // Longer than a silent server is waited for.
    let save = turn(&conversation, &["one"]);
    let (saved, ()) = tokio::join!(store.append(&save), async {
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        lock.rollback().await.unwrap();
    });
    saved.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn save_that_is_retried_internally_is_not_reported_as_a_replay() {
    let silent = SilentServer::start(2).await;
    let store = &silent.store;
    let conversation = create_conversation(store).await;
    let chosen = |text: &str| {
        let messages = vec![with_chosen_id(text), with_chosen_id("second")];
        append_of(&conversation, messages)
    };
    let appends = [
        chosen("text 0"),
        with_request_id(chosen("text 1"), "1"),
        with_request_id(turn(&conversation, &["text 2", "second"]), "2"),
        with_request_id(
            append_of(
                &conversation,
                vec![with_chosen_id("text 3"), message("second")],
            ),
            "3",
        ),
    ];
    for (number, mut append) in (0..).zip(appends) {
        let text = format!("text {number}");
        append.at = at(1_000_000 + number);
        silent.proxy.lose_response_to(&text);
        let saved = store.append(&append).await;
        let expected = 2 * number + 1;
        assert!(
            matches!(saved, Ok(Appended::Saved { first_seq, .. }) if first_seq == expected),
            "{number}: {saved:?}"
        );
        // Another call with the same content is a replay, whether its response is lost or not.
        for is_lost in [false, true] {
            let mut retry = retry_of(&append);
            retry.at = at(2_000_000 + number);
            if is_lost {
                silent.proxy.lose_response_to(&text);
            }
            let replayed = store.append(&retry).await;
            assert!(
                matches!(replayed, Ok(Appended::Replayed { last_seq, .. }) if last_seq == expected + 1),
                "{number}: {replayed:?}"
            );
        }
    }
}

/// The number of a transaction can be above all numbers that the snapshot of a read knows: none has
/// ended since it began.
#[tokio::test(flavor = "multi_thread")]
async fn read_during_the_newest_of_several_transactions_is_not_settled() {
    let server = PostgresServer::start().await;
    let store = prepared(&server.url(), 2).await;
    let conversation = create_conversation(&store).await;
    let is_settled = async || {
        let newest = store.newest(&conversation, 9, false).await;
        newest.unwrap().is_settled
    };
    assert!(is_settled().await);
    let mut older = Vec::new();
    for _ in 0..3 {
        let mut connection = server.connect().await;
        raw_sql("BEGIN; SELECT pg_current_xact_id()")
            .execute(&mut connection)
            .await
            .unwrap();
        older.push(connection);
    }
    let mut writer = server.connect().await;
    raw_sql("BEGIN; DELETE FROM conversations")
        .execute(&mut writer)
        .await
        .unwrap();
    assert!(!is_settled().await);
    raw_sql("ROLLBACK").execute(&mut writer).await.unwrap();
    assert!(is_settled().await);
}

/// Each of many sidecars that have saved would keep a connection, for which others have no place.
#[tokio::test(flavor = "multi_thread")]
async fn more_sidecars_than_connections_of_the_server_can_save() {
    let mut server = PostgresServer::start().await;
    server
        .execute("ALTER SYSTEM SET max_connections = 16")
        .await;
    server.stop();
    server.run().await;
    let url = server.url();
    prepared(&url, 10).await.close().await;
    let stores: Vec<_> = (0..48)
        .map(|_| PostgresStore::new(url.parse().unwrap(), 10))
        .collect();
    let saves = stores.iter().map(async |store| {
        eventually("the store is prepared", async || {
            store.prepare(false).await.is_ok()
        })
        .await;
        let new = new_conversation(&user());
        eventually("a conversation is created", async || {
            store.create(&new, at(0)).await.is_ok()
        })
        .await;
        let turn = turn(&owned_ref(&new), &["saved"]);
        eventually("a turn is saved", async || {
            store.append(&turn).await.is_ok()
        })
        .await;
    });
    join_all(saves).await;
}

/// Saves turns without a pause until a save succeeds after `promoted`, and returns the texts of those
/// that were acknowledged.
async fn save_through_a_failover(
    store: &PostgresStore,
    conversation: &ConversationRef,
    is_promoted: &AtomicBool,
) -> Vec<String> {
    let mut saved = Vec::new();
    for number in 0.. {
        let text = format!("turn {number}");
        let was_promoted = is_promoted.load(Ordering::SeqCst);
        let outcome = store.append(&turn(conversation, &[text.as_str()])).await;
        if outcome.is_ok() {
            saved.push(text);
            if was_promoted {
                break;
            }
        } else {
            sleep(Duration::from_millis(20)).await;
        }
    }
    saved
}

/// Each way in which a primary ends.
#[tokio::test(flavor = "multi_thread")]
async fn promoted_standby_of_the_url_is_used_and_lacks_no_acknowledged_save() {
    for freezes in [false, true] {
        let mut primary = PostgresServer::start().await;
        let standby = primary.start_standby().await;
        for statement in [
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            primary.execute(statement).await;
        }
        let urls = [primary.url(), standby.url()].map(|url| url.parse().unwrap());
        // The order of the servers does not matter.
        let [further, first]: [PgConnectOptions; 2] = urls;
        let languages = Languages::default();
        let store = PostgresStore::connect(first, vec![further], 4, languages, Pooler::Detect);
        store.prepare(true).await.unwrap();
        let conversation = create_conversation(&store).await;
        let is_promoted = AtomicBool::new(false);
        let promote = async {
            sleep(Duration::from_millis(200)).await;
            if freezes {
                primary.freeze();
            } else {
                primary.kill();
            }
            standby
                .execute("ALTER SYSTEM RESET synchronous_standby_names")
                .await;
            standby.promote().await;
            standby.execute("SELECT pg_reload_conf()").await;
            is_promoted.store(true, Ordering::SeqCst);
        };
        let (saved, ()) = tokio::join!(
            save_through_a_failover(&store, &conversation, &is_promoted),
            promote
        );
        let read = store
            .messages(&conversation, Bound::After(0), 10_000, false)
            .await;
        let stored: Vec<_> = read
            .unwrap()
            .into_iter()
            .map(|message| message.content.into_string())
            .collect();
        for text in &saved {
            let found = stored.iter().filter(|stored| *stored == text).count();
            assert_eq!(found, 1, "{text}");
        }
        store.close().await;
        if freezes {
            primary.thaw();
        }
    }
}
