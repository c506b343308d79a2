//! Searches that take long: they have a limit, and other calls do not wait for them.

use std::{sync::Arc, time::Duration};

use conversation_memory::store::{StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, query_scalar, raw_sql, sqlite::SqliteConnectOptions,
};
use tokio::task::JoinSet;

use crate::{
    postgres::empty_schema,
    search::{expected_of_many, found_on_pages, query, save_many},
};
use test_support::{
    eventually,
    stopwatch::Stopwatch,
    store_fixture::{SLOW_SEARCHES_ON_POSTGRES, StoreFixture, turn},
};

/// Upper bound on the time of a turn, which a search exceeds.
const PROMPT: Duration = Duration::from_millis(3_500);

const FAST_ON_POSTGRES: &str = "CREATE OR REPLACE FUNCTION searched_text(content text) RETURNS text LANGUAGE sql IMMUTABLE \
     RETURN left(content, 16384)";

const SLOW_ON_SQLITE: &str = "ALTER TABLE message_documents RENAME TO stored_documents; \
     CREATE VIEW message_documents AS \
     SELECT d.id, d.conversation_id, d.seq, d.dept_id, d.role, d.analyzer, d.terms, d.user_id || ( \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) \
         SELECT count(*) FROM n) AS user_id \
     FROM stored_documents d";

const FAST_ON_SQLITE: &str =
    "DROP VIEW message_documents; ALTER TABLE stored_documents RENAME TO message_documents";

#[tokio::test(flavor = "multi_thread")]
async fn searches_have_a_limit_on_postgres() {
    let options = empty_schema().await;
    let fixture = StoreFixture::prepared(PostgresStore::new(options.clone(), 5)).await;
    searches_have_a_limit(&fixture, async |slow| {
        let statements = if slow {
            SLOW_SEARCHES_ON_POSTGRES
        } else {
            FAST_ON_POSTGRES
        };
        let mut connection = options.connect().await.unwrap();
        raw_sql(statements).execute(&mut connection).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_have_a_limit_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    searches_have_a_limit(&fixture, async |slow| {
        let statements = if slow { SLOW_ON_SQLITE } else { FAST_ON_SQLITE };
        let options = SqliteConnectOptions::new().filename(&file);
        let mut connection = options.connect().await.unwrap();
        let statements = raw_sql(AssertSqlSafe(format!(
            "BEGIN IMMEDIATE; {statements}; COMMIT"
        )));
        statements.execute(&mut connection).await.unwrap();
    })
    .await;
}

/// A plan for the average user would be executed by one process.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_search_many_messages() {
    let options = empty_schema().await.options([
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_index_scan_size", "0"),
    ]);
    let fixture = StoreFixture::prepared(PostgresStore::new(options.clone(), 5)).await;
    let (_, user) = save_many(&fixture).await;
    let mut connection = options.connect().await.unwrap();
    raw_sql("ANALYZE message_documents")
        .execute(&mut connection)
        .await
        .unwrap();
    let search = query(&user, "vocation");
    assert_eq!(
        found_on_pages(&fixture, search.clone()).await,
        expected_of_many()
    );
    let (store, repeated) = (Arc::clone(&fixture.store), search.clone());
    let mut searches = JoinSet::new();
    searches.spawn(async move {
        loop {
            store.search(&repeated).await.unwrap();
        }
    });
    eventually("a second process searches", async || {
        let searching = "SELECT EXISTS (SELECT FROM pg_stat_activity a \
            WHERE a.backend_type = 'parallel worker' AND a.query LIKE '%ts_rank(d.words%')";
        let found = query_scalar(searching).fetch_one(&mut connection).await;
        found.unwrap()
    })
    .await;
    searches.shutdown().await;
}

async fn searches_have_a_limit(fixture: &StoreFixture, set_slow: impl AsyncFn(bool)) {
    let searched = fixture.create_conversation().await;
    fixture
        .append_texts(&searched, &["slow", "slow", "slow"])
        .await;
    let user = searched.user_id.clone().unwrap();
    let other = fixture.create_conversation().await;
    set_slow(true).await;
    let mut searches = JoinSet::new();
    for _ in 0..12 {
        let (store, query) = (Arc::clone(&fixture.store), query(&user, "slow"));
        searches.spawn(async move { store.search(&query).await });
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < 12 {
        // Another user's turns are not delayed.
        let turn_time = Stopwatch::start();
        fixture
            .store
            .append(&turn(&other, &["turn"]))
            .await
            .unwrap();
        fixture.store.newest(&other, 10, false).await.unwrap();
        assert!(turn_time.elapsed() < PROMPT);
        while let Some(outcome) = searches.try_join_next() {
            outcomes.push(outcome.unwrap().unwrap_err());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let are_limited = outcomes.iter().all(|outcome| {
        matches!(
            outcome,
            StoreError::SearchTooExpensive | StoreError::TooManySearches
        )
    });
    assert!(are_limited, "{outcomes:?}");
    for limit in ["SearchTooExpensive", "TooManySearches"] {
        let is_limit = |outcome: &StoreError| format!("{outcome:?}") == limit;
        assert!(outcomes.iter().any(is_limit), "{outcomes:?}");
    }
    // Searches whose callers have gone away end, too.
    for _ in 0..12 {
        let query = query(&user, "slow");
        let search = fixture.store.search(&query);
        let abandoned = tokio::time::timeout(Duration::from_millis(50), search).await;
        assert!(abandoned.is_err());
        fixture
            .store
            .append(&turn(&other, &["turn"]))
            .await
            .unwrap();
    }
    set_slow(false).await;
    eventually("searches succeed again", async || {
        let found = fixture.store.search(&query(&user, "slow")).await;
        found.is_ok_and(|page| page.hits.len() == 3)
    })
    .await;
}
