//! Search documents of earlier versions, and those that are not analyzed yet.

use conversation_memory::{
    domain::ConversationRef,
    store::{Reindexed, postgres::PostgresStore, sqlite::SqliteStore},
    text_analysis::Languages,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, SqliteConnection, migrate::Migrator, query_scalar, raw_sql,
    sqlite::SqliteConnectOptions,
};

use crate::{
    postgres::empty_schema,
    search::{found, query},
};
use test_support::store_fixture::StoreFixture;

const TEXT: &str = "the policies of 北京大学";

/// Reindexes everything, and returns the number of messages that were analyzed again.
async fn reindex(fixture: &StoreFixture) -> u64 {
    let (mut analyzed, mut next) = (0, None);
    loop {
        let step = fixture.store.reindex(next).await.unwrap();
        let Reindexed {
            analyzed: count, ..
        } = step;
        analyzed += count;
        next = step.next;
        if next.is_none() {
            return analyzed;
        }
    }
}

async fn count(fixture: &StoreFixture, conversation: &ConversationRef, words: &str) -> usize {
    let user = conversation.user_id.clone().unwrap();
    found(fixture, &query(&user, words)).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_previous_version_saves_are_found_in_postgres() {
    let options = empty_schema().await;
    let fixture = StoreFixture::prepared(PostgresStore::new(options.clone(), 2)).await;
    let conversation = fixture.create_conversation().await;
    let mut previous = options.connect().await.unwrap();
    let id = conversation.id.as_uuid();
    let insert = format!(
        "INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
         SELECT '{id}', n, gen_random_uuid(), 'user', \
                CASE n WHEN 450 THEN '👍' ELSE '{TEXT}' END, now() \
         FROM generate_series(1, 450) n; \
         UPDATE conversations SET last_seq = 450 WHERE id = '{id}'"
    );
    raw_sql(AssertSqlSafe(insert))
        .execute(&mut previous)
        .await
        .unwrap();
    fixture.append_texts(&conversation, &[TEXT]).await;
    for (words, before) in [("policy", 100), ("大学", 1)] {
        assert_eq!(count_page(&fixture, &conversation, words).await, before);
    }
    assert_eq!(reindex(&fixture).await, 450);
    for words in ["policy", "大学"] {
        assert_eq!(count_page(&fixture, &conversation, words).await, 100);
    }
    assert_eq!(reindex(&fixture).await, 0);
    let analyzers = "SELECT array_agg(DISTINCT config) FROM message_documents";
    let analyzers: Vec<String> = query_scalar(analyzers)
        .fetch_one(&mut previous)
        .await
        .unwrap();
    assert_eq!(analyzers, [Languages::default().analyzer()]);
}

async fn count_page(fixture: &StoreFixture, conversation: &ConversationRef, words: &str) -> usize {
    let user = conversation.user_id.clone().unwrap();
    let page = fixture.store.search(&query(&user, words)).await.unwrap();
    page.hits.len()
}

/// Returns the migrations of the version before.
fn migrations_before(mut migrator: Migrator) -> Migrator {
    let before = migrator.migrations.iter().filter(|m| m.version <= 8);
    migrator.migrations = before.cloned().collect::<Vec<_>>().into();
    migrator
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_previous_version_are_found_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true);
    let mut raw: SqliteConnection = options.connect().await.unwrap();
    migrations_before(sqlx::migrate!("migrations/sqlite"))
        .run_direct(None, &mut raw, false)
        .await
        .unwrap();
    let rows = format!(
        "INSERT INTO conversations (id, user_id, last_seq, activity, created_at, updated_at)
         VALUES ('01a20000-0000-7000-8000-000000000001', 'ana', 2, 1, 1, 1);
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
         VALUES ('01a20000-0000-7000-8000-000000000001', 1, '01a20000-0000-7000-8000-000000000002',
                 'user', '{TEXT}', 1),
                ('01a20000-0000-7000-8000-000000000001', 2, '01a20000-0000-7000-8000-000000000003',
                 'user', '👍', 1);"
    );
    raw_sql(AssertSqlSafe(rows))
        .execute(&mut raw)
        .await
        .unwrap();
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    let user = conversation_memory::domain::UserId::parse("ana").unwrap();
    for words in ["policy", "大学"] {
        assert_eq!(found(&fixture, &query(&user, words)).await, [TEXT]);
    }
    reindex(&fixture).await;
    for words in ["policy", "大学"] {
        assert_eq!(found(&fixture, &query(&user, words)).await, [TEXT]);
    }
    let without_terms = "SELECT count(*) FROM message_documents WHERE terms IS NULL";
    let without_terms: i64 = query_scalar(without_terms)
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(without_terms, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_not_analyzed_yet_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let prepared = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    prepared.store.close().await;
    // A store that is not prepared does not analyze, as one that was killed after a save.
    let fixture = StoreFixture::without_prepare(SqliteStore::open(&file).unwrap());
    let conversation = fixture.create_conversation().await;
    fixture
        .append_texts(&conversation, &[TEXT, "unrelated"])
        .await;
    let ranked = async |fixture: &StoreFixture| {
        let user = conversation.user_id.clone().unwrap();
        let page = fixture.store.search(&query(&user, "policy")).await.unwrap();
        page.hits
    };
    let before = ranked(&fixture).await;
    assert_eq!(before.len(), 1);
    assert_eq!(count(&fixture, &conversation, "-policy").await, 1);
    assert_eq!(reindex(&fixture).await, 2);
    assert_eq!(ranked(&fixture).await, before);
}
