//! Tests of the store on PostgreSQL only.

use std::{sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ConversationRef, IdSource, UuidV7},
    store::{
        Appended, Bound, Invalidation, Newest, SchemaError, Store, StoreError,
        postgres::PostgresStore,
    },
    text_analysis::Languages,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, query,
    query_as, query_scalar, raw_sql,
};
use tokio::task::JoinSet;

use crate::search::assert_forms;
use crate::upgrades::latest_version;
use test_support::{
    eventually,
    stopwatch::Stopwatch,
    store_fixture::{
        StoreFixture, append_of, at, message, new_conversation, owned_ref, server_options, turn,
        user, with_request_id,
    },
};

/// Creates a schema for a test that changes what the tests otherwise share.
pub(crate) async fn empty_schema() -> PgConnectOptions {
    let name = format!("test_{}", UuidV7.uuid().simple());
    let mut connection = server_options().connect().await.unwrap();
    raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    server_options().options([("search_path", name)])
}

async fn create_conversation(store: &PostgresStore) -> ConversationRef {
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    owned_ref(&new)
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_prepare_calls_succeed() {
    let options = empty_schema().await;
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let store = PostgresStore::new(options.clone(), 2);
        tasks.spawn(async move { store.prepare(true).await.unwrap() });
    }
    tasks.join_all().await;
    let store = PostgresStore::new(options, 2);
    store.prepare(false).await.unwrap();
    create_conversation(&store).await;
}

/// PostgreSQL 17 and later can limit the duration of the transactions of a role.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_role_does_not_end_a_migration() {
    let options = empty_schema().await;
    let mut observer = options.connect().await.unwrap();
    let has_limit =
        query_scalar("SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'transaction_timeout')");
    let has_limit: bool = has_limit.fetch_one(&mut observer).await.unwrap();
    let store = PostgresStore::new(options.clone(), 1);
    store.prepare(true).await.unwrap();
    store.close().await;
    let undo = "DELETE FROM _sqlx_migrations WHERE version = 18; DROP TABLE primary_start";
    raw_sql(undo).execute(&mut observer).await.unwrap();
    let role = format!("limited_{}", UuidV7.uuid().simple());
    let limit = if has_limit {
        format!("ALTER ROLE {role} SET transaction_timeout = '1s'")
    } else {
        String::new()
    };
    raw_sql(AssertSqlSafe(format!(
        "CREATE ROLE {role} LOGIN SUPERUSER; {limit}"
    )))
    .execute(&mut observer)
    .await
    .unwrap();
    let mut locking = options.connect().await.unwrap();
    raw_sql("BEGIN; LOCK TABLE _sqlx_migrations IN EXCLUSIVE MODE")
        .execute(&mut locking)
        .await
        .unwrap();
    let store = PostgresStore::new(options.username(&role), 1);
    let release = async {
        eventually("the migration takes longer than the limit", async || {
            let waits = query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 \
                    AND wait_event_type = 'Lock' \
                    AND xact_start < clock_timestamp() - interval '2 seconds')",
            );
            waits.bind(&role).fetch_one(&mut observer).await.unwrap()
        })
        .await;
        raw_sql("COMMIT").execute(&mut locking).await.unwrap();
    };
    let migrated = async { store.prepare(true).await.unwrap() };
    tokio::join!(migrated, release);
    store.close().await;
    raw_sql(AssertSqlSafe(format!(
        "DROP OWNED BY {role} CASCADE; DROP ROLE {role}"
    )))
    .execute(&mut observer)
    .await
    .unwrap();
}

/// Tables that frameworks create for memories of their own, in the same database perhaps.
const TABLES_OF_FRAMEWORKS: [&str; 13] = [
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
    "checkpoint_migrations",
    "store",
    "store_vectors",
    "store_migrations",
    "sessions",
    "events",
    "app_states",
    "user_states",
    "agent_sessions",
    "agent_messages",
];

#[tokio::test(flavor = "multi_thread")]
async fn prepare_succeeds_beside_the_tables_of_frameworks() {
    let options = empty_schema().await;
    let mut other = options.connect().await.unwrap();
    for table in TABLES_OF_FRAMEWORKS {
        let create = format!("CREATE TABLE {table} (unrelated int)");
        raw_sql(AssertSqlSafe(create))
            .execute(&mut other)
            .await
            .unwrap();
    }
    let store = PostgresStore::new(options, 2);
    store.prepare(true).await.unwrap();
    create_conversation(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_reports_other_schema_versions() {
    let options = empty_schema().await;
    let store = PostgresStore::new(options.clone(), 2);
    let latest = latest_version(&sqlx::migrate!("migrations/postgres"));
    assert!(matches!(
        store.prepare(false).await,
        Err(SchemaError::Older { found: 0, wanted }) if wanted == latest
    ));
    let conversation = owned_ref(&new_conversation(&user()));
    assert!(matches!(
        store.get(&conversation).await,
        Err(StoreError::Unavailable(_))
    ));
    store.prepare(true).await.unwrap();
    let mut raw = options.connect().await.unwrap();
    query("UPDATE _sqlx_migrations SET checksum = '\\x00'")
        .execute(&mut raw)
        .await
        .unwrap();
    assert!(matches!(
        store.prepare(true).await,
        Err(SchemaError::Changed { version: 1 })
    ));
    query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'from the future', true, '\\x00', 0)",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    for migrate in [false, true] {
        assert!(matches!(
            store.prepare(migrate).await,
            Err(SchemaError::Newer { found: 999, wanted }) if wanted == latest
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_server_is_reported_within_seconds() {
    // No server listens on port 1.
    let store = PostgresStore::new(server_options().port(1), 2);
    let conversation = owned_ref(&new_conversation(&user()));
    let started = Stopwatch::start();
    let refused = store.append(&turn(&conversation, &["one"])).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(started.elapsed() < Duration::from_millis(2_500));
    let refused = store.get(&conversation).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(matches!(
        store.prepare(true).await,
        Err(SchemaError::Unavailable(_))
    ));
    store.close().await;
    let refused = store.get(&conversation).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn save_waits_for_a_lock_until_the_statement_timeout() {
    let store = PostgresStore::new(server_options(), 2);
    store.prepare(true).await.unwrap();
    let conversation = create_conversation(&store).await;
    let mut other = server_options().connect().await.unwrap();
    let mut lock = other.begin().await.unwrap();
    query("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(conversation.id.as_uuid())
        .execute(&mut *lock)
        .await
        .unwrap();
    let started = Stopwatch::start();
    let refused = store.append(&turn(&conversation, &["one"])).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(7));
    // Reads do not wait for the lock.
    assert_eq!(store.get(&conversation).await.unwrap().last_seq, 0);
    lock.rollback().await.unwrap();
    store.append(&turn(&conversation, &["one"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_contain_no_message_content() {
    let fixture = StoreFixture::postgres().await;
    let conversation = fixture.create_conversation().await;
    let mut append = append_of(&conversation, vec![message("the secret words")]);
    // Request parsing would have rejected this value.
    append.messages[0].tokens_used = Some(-1);
    let Err(error) = fixture.save(&append).await else {
        panic!("a negative count was accepted");
    };
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.source().is_none());
    let text = format!("{error} {error:?} {cause} {cause:?}");
    assert!(matches!(error, StoreError::Internal(_)));
    assert!(
        text.contains("23514") && text.contains("messages"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

/// Connections are terminated repeatedly while turns are saved. Each acknowledged turn is
/// stored once, and no rejected turn is stored.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_neither_lose_nor_duplicate_saves() {
    let name = format!("terminated-{}", UuidV7.uuid().simple());
    let store = Arc::new(PostgresStore::new(
        server_options().application_name(&name),
        4,
    ));
    store.prepare(true).await.unwrap();
    let conversation = create_conversation(&store).await;
    let mut savers = JoinSet::new();
    for saver in 0..4 {
        let (store, conversation) = (Arc::clone(&store), conversation.clone());
        savers.spawn(async move {
            let (mut saved, mut refused) = (Vec::new(), Vec::new());
            for place in 0..60 {
                let text = format!("{saver} {place}");
                let append = turn(&conversation, &[&text, "and more"]);
                let append = if place % 2 == 0 {
                    with_request_id(append, &text)
                } else {
                    append
                };
                match store.append(&append).await {
                    Ok(Appended::Saved { first_seq, .. }) => saved.push((text, first_seq)),
                    Ok(Appended::Replayed { last_seq, .. }) => saved.push((text, last_seq - 1)),
                    Err(StoreError::OutcomeUnknown(_)) => {}
                    // On an overloaded machine, all attempts can be terminated.
                    Err(StoreError::Unavailable(_)) => refused.push(text),
                    Err(other) => panic!("{other:?}"),
                }
            }
            (saved, refused)
        });
    }
    let terminate = async {
        let mut connection = server_options().connect().await.unwrap();
        loop {
            query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1")
                .bind(&name)
                .execute(&mut connection)
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let outcomes = tokio::select! {
        outcomes = savers.join_all() => outcomes,
        () = terminate => panic!("the termination loop ended"),
    };
    let (saved, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
    let (saved, refused) = (saved.concat(), refused.concat());
    let Newest {
        conversation: found,
        messages,
        ..
    } = store.newest(&conversation, 10_000, false).await.unwrap();
    assert_eq!(i64::try_from(messages.len()).unwrap(), found.last_seq);
    let mut texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
    for (text, first_seq) in &saved {
        let place = usize::try_from(*first_seq).unwrap() - 1;
        assert_eq!(texts[place..place + 2], [text.as_str(), "and more"]);
    }
    for text in &refused {
        assert!(!texts.contains(&text.as_str()), "{text} was rejected");
    }
    texts.retain(|text| *text != "and more");
    let all = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), all, "a turn was saved twice");
    assert!(
        all >= saved.len() && saved.len() > 24,
        "{} of 240 saved",
        saved.len()
    );
}

/// Returns how many rows of the messages have been read since the schema was created: rows of
/// the table without an index, and entries of its indexes. The server adds the counts of a
/// session when the session ends.
async fn count_reads(connection: &mut PgConnection, saved: i64) -> (i64, i64) {
    loop {
        let (inserted, scanned, entries): (i64, i64, i64) = query_as(
            "SELECT sum(t.n_tup_ins)::bigint, sum(t.seq_tup_read)::bigint, \
                sum((SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i \
                     WHERE i.relid = t.relid))::bigint \
             FROM pg_stat_user_tables t JOIN pg_inherits p ON p.inhrelid = t.relid \
             WHERE p.inhparent = 'messages'::regclass",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if inserted >= saved {
            return (scanned, entries);
        }
        tokio::task::yield_now().await;
    }
}

/// Reads and saves touch as many rows in a long conversation as in a short one. The plans are
/// made from a table that was never analyzed, both the first ones and the cached ones.
#[tokio::test(flavor = "multi_thread")]
async fn cost_does_not_depend_on_conversation_length() {
    const LENGTH: i64 = 20_000;
    const ROUNDS: i64 = 20;
    let options = empty_schema().await;
    let store = PostgresStore::new(options.clone(), 1);
    store.prepare(true).await.unwrap();
    let conversation = create_conversation(&store).await;
    let mut other = options.connect().await.unwrap();
    query(
        "WITH m AS (INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
            SELECT $1, n, gen_random_uuid(), 'user', 'text ' || n, now() \
            FROM generate_series(1, $2) n) \
         UPDATE conversations SET last_seq = $2 WHERE id = $1",
    )
    .bind(conversation.id.as_uuid())
    .bind(LENGTH)
    .execute(&mut other)
    .await
    .unwrap();
    other.close().await.unwrap();

    let mut counter = options.connect().await.unwrap();
    let before = count_reads(&mut counter, LENGTH).await;
    for round in 0..ROUNDS {
        let middle = LENGTH / 2 + round;
        for from in [Bound::After(middle), Bound::Before(middle)] {
            let page = store.messages(&conversation, from, 10, true).await.unwrap();
            assert_eq!(page.len(), 10);
        }
        let Newest {
            conversation: found,
            messages: newest,
            ..
        } = store.newest(&conversation, 10, true).await.unwrap();
        assert_eq!((found.last_seq, newest.len()), (LENGTH + round, 10));
        store
            .append(&turn(&conversation, &["one more"]))
            .await
            .unwrap();
    }
    store.close().await;
    let after = count_reads(&mut counter, LENGTH + ROUNDS).await;
    assert_eq!(after.0, before.0, "the table was read without its index");
    let entries = after.1 - before.1;
    assert!(
        entries <= ROUNDS * 40,
        "{entries} entries in {ROUNDS} rounds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_other_languages_are_found_as_they_are_written() {
    let english = StoreFixture::prepared(PostgresStore::new(server_options(), 2)).await;
    let store = PostgresStore::with_languages(server_options(), 2, Languages::NONE);
    let simple = StoreFixture::prepared(store).await;
    let conversation = english.create_conversation().await;
    let user = conversation.user_id.clone().unwrap();
    english.append_texts(&conversation, &["1 the policy"]).await;
    simple
        .append_texts(&conversation, &["2 the policies"])
        .await;
    for (fixture, text, expected) in [
        (&english, "policy", vec!["1 the policy"]),
        (&english, "policies", vec!["1 the policy", "2 the policies"]),
        (&simple, "policy", vec!["1 the policy"]),
        (&simple, "policies", vec!["2 the policies"]),
        (&simple, "the", vec!["2 the policies"]),
    ] {
        let found = crate::search::found(fixture, &crate::search::query(&user, text)).await;
        assert_eq!(found, expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_from_before_the_search_migration_are_found() {
    let options = empty_schema().await;
    let mut raw = options.connect().await.unwrap();
    raw_sql(include_str!("../../migrations/postgres/0001_init.sql"))
        .execute(&mut raw)
        .await
        .unwrap();
    let conversation = owned_ref(&new_conversation(&user()));
    let user = conversation.user_id.clone().unwrap();
    query("INSERT INTO conversations (id, user_id, created_at, updated_at) VALUES ($1, $2, now(), now())")
        .bind(conversation.id.as_uuid())
        .bind(user.as_str())
        .execute(&mut raw)
        .await
        .unwrap();
    query(
        "INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
         VALUES ($1, 1, $2, 'user', 'the policy', now())",
    )
    .bind(conversation.id.as_uuid())
    .bind(UuidV7.uuid())
    .execute(&mut raw)
    .await
    .unwrap();
    for migration in [
        include_str!("../../migrations/postgres/0002_branches.sql"),
        include_str!("../../migrations/postgres/0003_search.sql"),
        include_str!("../../migrations/postgres/0004_parts.sql"),
    ] {
        raw_sql(migration).execute(&mut raw).await.unwrap();
    }
    let fixture = StoreFixture::without_prepare(PostgresStore::new(options, 2));
    assert_forms(&fixture, &user, &["the policy"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_delete_search_documents() {
    let fixture = StoreFixture::postgres().await;
    let conversation = fixture.create_conversation().await;
    fixture
        .append_texts(&conversation, &["one", "two", "three"])
        .await;
    let mut raw = server_options().connect().await.unwrap();
    let mut words = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM message_documents WHERE conversation_id = $1")
            .bind(conversation.id.as_uuid())
            .fetch_one(&mut raw)
            .await
            .unwrap()
    };
    assert_eq!(words().await, 3);
    let truncation = test_support::store_fixture::truncation(&conversation, 1);
    fixture.store.truncate(&truncation).await.unwrap();
    assert_eq!(words().await, 1);
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    assert_eq!(words().await, 0);
}
