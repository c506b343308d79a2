//! What only the store on PostgreSQL does.

use std::{sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ConversationRef, IdSource, TextSearch, UuidV7},
    store::{Appended, Bound, SchemaError, Store, StoreError, postgres::PostgresStore},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions, query,
    query_as, raw_sql,
};
use tokio::task::JoinSet;

use crate::search::assert_forms;
use test_support::{
    stopwatch::Stopwatch,
    world::{World, at, keyed, message, named, new_conversation, save_of, server, turn, user},
};

/// A schema of its own, for a test that changes what all share.
async fn empty_schema() -> PgConnectOptions {
    let name = format!("test_{}", UuidV7.uuid().simple());
    let mut connection = server().connect().await.unwrap();
    raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    server().options([("search_path", name)])
}

async fn begun(store: &PostgresStore) -> ConversationRef {
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    named(&new)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_prepare_at_once() {
    let options = empty_schema().await;
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let store = PostgresStore::new(options.clone(), 2);
        tasks.spawn(async move { store.prepare(true).await.unwrap() });
    }
    tasks.join_all().await;
    let store = PostgresStore::new(options, 2);
    store.prepare(false).await.unwrap();
    begun(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_is_told() {
    let options = empty_schema().await;
    let store = PostgresStore::new(options.clone(), 2);
    assert!(matches!(
        store.prepare(false).await,
        Err(SchemaError::Older {
            found: 0,
            wanted: 3
        })
    ));
    let conversation = named(&new_conversation(&user()));
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
         VALUES (9, 'from the future', true, '\\x00', 0)",
    )
    .execute(&mut raw)
    .await
    .unwrap();
    for migrate in [false, true] {
        assert!(matches!(
            store.prepare(migrate).await,
            Err(SchemaError::Newer {
                found: 9,
                wanted: 3
            })
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_unavailable_soon() {
    // Port 1 of this machine: nobody listens there.
    let store = PostgresStore::new(server().port(1), 2);
    let conversation = named(&new_conversation(&user()));
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
async fn a_lock_that_is_held_is_waited_for_and_no_longer() {
    let store = PostgresStore::new(server(), 2);
    store.prepare(true).await.unwrap();
    let conversation = begun(&store).await;
    let mut other = server().connect().await.unwrap();
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
    // Readers do not wait.
    assert_eq!(store.get(&conversation).await.unwrap().last_seq, 0);
    lock.rollback().await.unwrap();
    store.append(&turn(&conversation, &["one"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_message_reaches_an_error() {
    let world = World::postgres().await;
    let conversation = world.conversation().await;
    let mut append = save_of(&conversation, vec![message("the secret words")]);
    // What the edge would have refused.
    append.messages[0].tokens_used = Some(-1);
    let Err(error) = world.save(&append).await else {
        panic!("a negative count was taken");
    };
    let cause = std::error::Error::source(&error).unwrap();
    assert!(cause.source().is_none());
    let told = format!("{error} {error:?} {cause} {cause:?}");
    assert!(matches!(error, StoreError::Internal(_)));
    assert!(
        told.contains("23514") && told.contains("messages"),
        "{told}"
    );
    assert!(!told.contains("secret"), "{told}");
}

/// Connections are shot down again and again while turns are saved: each turn
/// that was acknowledged is there, each that was refused is not, none twice.
#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_and_double_nothing() {
    let name = format!("shot-down-{}", UuidV7.uuid().simple());
    let store = Arc::new(PostgresStore::new(server().application_name(&name), 4));
    store.prepare(true).await.unwrap();
    let conversation = begun(&store).await;
    let mut savers = JoinSet::new();
    for saver in 0..4 {
        let (store, conversation) = (Arc::clone(&store), conversation.clone());
        savers.spawn(async move {
            let (mut saved, mut refused) = (Vec::new(), Vec::new());
            for place in 0..60 {
                let text = format!("{saver} {place}");
                let append = turn(&conversation, &[&text, "and more"]);
                let append = if place % 2 == 0 {
                    keyed(append, &text)
                } else {
                    append
                };
                match store.append(&append).await {
                    Ok(Appended::Saved { first_seq, .. }) => saved.push((text, first_seq)),
                    Ok(Appended::Replayed { last_seq, .. }) => saved.push((text, last_seq - 1)),
                    Err(StoreError::OutcomeUnknown(_)) => {}
                    // On a machine that is starved, all attempts are shot down.
                    Err(StoreError::Unavailable(_)) => refused.push(text),
                    Err(other) => panic!("{other:?}"),
                }
            }
            (saved, refused)
        });
    }
    let shoot = async {
        let mut connection = server().connect().await.unwrap();
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
        () = shoot => panic!("the shooting ended"),
    };
    let (saved, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
    let (saved, refused) = (saved.concat(), refused.concat());
    let (found, messages) = store.newest(&conversation, 10_000, false).await.unwrap();
    assert_eq!(i64::try_from(messages.len()).unwrap(), found.last_seq);
    let mut texts: Vec<_> = messages.iter().map(|m| m.content.as_str()).collect();
    for (text, first_seq) in &saved {
        let place = usize::try_from(*first_seq).unwrap() - 1;
        assert_eq!(texts[place..place + 2], [text.as_str(), "and more"]);
    }
    for text in &refused {
        assert!(!texts.contains(&text.as_str()), "{text} was refused");
    }
    texts.retain(|text| *text != "and more");
    let all = texts.len();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), all, "a turn was saved twice");
    assert!(
        all >= saved.len() && saved.len() > 120,
        "{} of 240 saved",
        saved.len()
    );
}

/// What was read of the messages since the schema was made: rows of the table
/// without an index, entries of its indexes. The server counts once a session
/// has ended.
async fn reads(connection: &mut PgConnection, saved: i64) -> (i64, i64) {
    loop {
        let (inserted, scanned, entries): (i64, i64, i64) = query_as(
            "SELECT t.n_tup_ins, t.seq_tup_read, \
                (SELECT sum(i.idx_tup_read)::bigint FROM pg_stat_user_indexes i \
                 WHERE i.relid = t.relid) \
             FROM pg_stat_user_tables t WHERE t.relid = 'messages'::regclass",
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

/// Reading and saving touch as many rows in a long conversation as in a short
/// one. The plans come from a table that was never analyzed, at first and when
/// they are made for good.
#[tokio::test(flavor = "multi_thread")]
async fn cost_does_not_grow_with_the_conversation() {
    const LENGTH: i64 = 20_000;
    const ROUNDS: i64 = 20;
    let options = empty_schema().await;
    let store = PostgresStore::new(options.clone(), 1);
    store.prepare(true).await.unwrap();
    let conversation = begun(&store).await;
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
    let before = reads(&mut counter, LENGTH).await;
    for round in 0..ROUNDS {
        let middle = LENGTH / 2 + round;
        for from in [Bound::After(middle), Bound::Before(middle)] {
            let page = store.messages(&conversation, from, 10, true).await.unwrap();
            assert_eq!(page.len(), 10);
        }
        let (found, newest) = store.newest(&conversation, 10, true).await.unwrap();
        assert_eq!((found.last_seq, newest.len()), (LENGTH + round, 10));
        store
            .append(&turn(&conversation, &["one more"]))
            .await
            .unwrap();
    }
    store.close().await;
    let after = reads(&mut counter, LENGTH + ROUNDS).await;
    assert_eq!(after.0, before.0, "the table was read without its index");
    let entries = after.1 - before.1;
    assert!(
        entries <= ROUNDS * 40,
        "{entries} entries in {ROUNDS} rounds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_stays_searched_as_it_was_saved() {
    let english = World::of(PostgresStore::new(server(), 2)).await;
    let store = PostgresStore::with_text_search(server(), 2, TextSearch::Simple);
    let simple = World::of(store).await;
    let conversation = english.conversation().await;
    let user = conversation.user_id.clone().unwrap();
    english.say(&conversation, &["1 the policy"]).await;
    simple.say(&conversation, &["2 the policies"]).await;
    for world in [&english, &simple] {
        assert_forms(world, &user, &["1 the policy"], &["2 the policies"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_saved_before_searches_were_is_found() {
    let options = empty_schema().await;
    let mut raw = options.connect().await.unwrap();
    raw_sql(include_str!("../../migrations/postgres/0001_init.sql"))
        .execute(&mut raw)
        .await
        .unwrap();
    let conversation = named(&new_conversation(&user()));
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
    ] {
        raw_sql(migration).execute(&mut raw).await.unwrap();
    }
    let world = World::unprepared(PostgresStore::new(options, 2));
    assert_forms(&world, &user, &["the policy"], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_leaves_no_words() {
    let world = World::postgres().await;
    let conversation = world.conversation().await;
    world.say(&conversation, &["one", "two", "three"]).await;
    let mut raw = server().connect().await.unwrap();
    let mut words = async || -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM message_documents WHERE conversation_id = $1")
            .bind(conversation.id.as_uuid())
            .fetch_one(&mut raw)
            .await
            .unwrap()
    };
    assert_eq!(words().await, 3);
    let truncation = test_support::world::truncation(&conversation, 1);
    world.store.truncate(&truncation).await.unwrap();
    assert_eq!(words().await, 1);
    world.store.delete(&conversation).await.unwrap();
    assert_eq!(words().await, 0);
}
