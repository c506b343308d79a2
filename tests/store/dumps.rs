//! Backups of hostile texts: a dump is restored, and search indexes are intact.

use std::collections::BTreeSet;

use conversation_memory::{
    domain::{ConversationRef, NumberedMessage, SearchText},
    store::{Store, postgres::PostgresStore, sqlite::SqliteStore},
    text_analysis::Languages,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection,
    migrate::Migrator, postgres::PgConnectOptions, query, query_scalar, raw_sql,
    sqlite::SqliteConnectOptions,
};

use crate::{
    branches::branch_of, hostile_texts::hostile_texts, imports::imported,
    search::query as search_query,
};
use test_support::{
    postgres_server::PostgresServer,
    store_fixture::{append_of, at, message, new_conversation, owned_ref, redaction, title, user},
};

/// Creates databases of each kind of character classification. Locales that the machine lacks are
/// left out; those of ICU come with the server.
pub(crate) async fn create_databases(server: &PostgresServer) -> Vec<PgConnectOptions> {
    let mut connection = server.connect().await;
    let mut created = Vec::new();
    for (index, locale) in [
        "LOCALE 'C'",
        "LOCALE 'C.UTF-8'",
        "LOCALE 'en_US.UTF-8'",
        "LOCALE 'tr_TR.UTF-8'",
        "LOCALE_PROVIDER icu ICU_LOCALE 'tr' LOCALE 'C.UTF-8'",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("locale_{index}");
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}");
        match raw_sql(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
        {
            Ok(_) => created.push(
                server
                    .url()
                    .parse::<PgConnectOptions>()
                    .unwrap()
                    .database(&name),
            ),
            Err(error) => assert!(error.to_string().contains("locale"), "{locale}: {error}"),
        }
    }
    assert!(created.len() >= 2);
    created
}

/// Saves the texts in two conversations of a user, imports and redacts some, and adds branches.
async fn fill(store: &dyn Store, texts: &[String]) -> ConversationRef {
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    store.create(&new, at(0)).await.unwrap();
    for batch in texts.chunks(50) {
        let messages = batch.iter().map(message).collect();
        let mut append = append_of(&conversation, messages);
        let shown: String = batch[0].chars().take(255).collect();
        append.title = (!shown.trim().is_empty()).then(|| (title(shown.trim()), 0));
        store.append(&append).await.unwrap();
    }
    let mut import = store.import(&imported(new.user_id.clone())).await.unwrap();
    for (batch, first) in texts.chunks(50).zip((1..).step_by(50)) {
        let messages: Vec<_> = (first..)
            .zip(batch)
            .map(|(seq, text)| NumberedMessage {
                seq,
                message: message(text),
            })
            .collect();
        import.add(&messages).await.unwrap();
    }
    import
        .finish(texts.len().try_into().unwrap())
        .await
        .unwrap();
    store.branch(&branch_of(&conversation, 100)).await.unwrap();
    store
        .redact(&redaction(&conversation, &[7, 80, 150, 300]))
        .await
        .unwrap();
    conversation
}

/// Searches for each text, and asserts that words of ordinary length are found.
async fn search_all(store: &dyn Store, conversation: &ConversationRef, texts: &[String]) {
    let user = conversation.user_id.clone().unwrap();
    let queries: BTreeSet<String> = texts
        .iter()
        .flat_map(|text| {
            [
                text.chars().take(512).collect(),
                text.chars().skip(1).take(90).collect(),
            ]
        })
        .filter(|text: &String| SearchText::parse(text.as_str()).is_ok())
        .collect();
    for text in queries.iter().step_by(7) {
        let mut query = search_query(&user, text);
        query.limit = 1;
        let page = store.search(&query).await;
        assert!(page.is_ok(), "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dump_of_hostile_texts_is_restored() {
    let server = PostgresServer::start().await;
    let texts = hostile_texts();
    for (options, languages) in create_databases(&server)
        .await
        .into_iter()
        .zip([Languages::default(), Languages::NONE].into_iter().cycle())
    {
        let store = PostgresStore::with_languages(options.clone(), 2, languages);
        store.prepare(true).await.unwrap();
        let conversation = fill(&store, &texts).await;
        search_all(&store, &conversation, &texts).await;
        assert_restores(&server, &options).await;
    }
}

/// Dumps a database with `pg_dump`, restores it with `psql`, and compares the rows.
async fn assert_restores(server: &PostgresServer, options: &PgConnectOptions) {
    let source = options.get_database().unwrap();
    let restored = format!("{source}_restored");
    let mut admin = server.connect().await;
    raw_sql(AssertSqlSafe(format!(
        "CREATE DATABASE {restored} TEMPLATE template0 LOCALE 'C.UTF-8' ENCODING 'UTF8'"
    )))
    .execute(&mut admin)
    .await
    .unwrap();
    server.copy_by_dump(source, &restored);
    let digests = "SELECT md5(string_agg(d::text, '' ORDER BY d.conversation_id, d.seq)) FROM message_documents d";
    let mut found = Vec::new();
    for options in [options.clone(), options.clone().database(&restored)] {
        let mut connection = options.connect().await.unwrap();
        let digest: String = query_scalar(digests)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        found.push(digest);
    }
    assert_eq!(found[0], found[1], "{source}");
}

/// Returns the migrations up to a version.
fn migrations_upto(mut migrator: Migrator, version: i64) -> Migrator {
    let applied = migrator.migrations.iter().filter(|m| m.version <= version);
    migrator.migrations = applied.cloned().collect::<Vec<_>>().into();
    migrator
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_repairs_documents_that_cannot_be_restored() {
    let server = PostgresServer::start().await;
    let options: PgConnectOptions = server.url().parse().unwrap();
    let mut raw: PgConnection = options.connect().await.unwrap();
    // Before the one that cuts long words.
    migrations_upto(sqlx::migrate!("migrations/postgres"), 5)
        .run_direct(None, &mut raw, false)
        .await
        .unwrap();
    let rows = "INSERT INTO conversations (id, user_id, last_seq, activity, created_at, updated_at)
                VALUES ('01a20000-0000-7000-8000-000000000001', 'ana', 2500, 1, now(), now());
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at)
         SELECT '01a20000-0000-7000-8000-000000000001', n, gen_random_uuid(), 'user',
                CASE n % 500 WHEN 1 THEN repeat('Ⱥ', 1000) WHEN 2 THEN 'end ' || repeat('Ⱦ', 1500)
                ELSE 'ordinary words ' || n END, now()
         FROM generate_series(1, 2500) n";
    raw_sql(rows).execute(&mut raw).await.unwrap();
    let untouched =
        "SELECT sum(xmin::text::bigint)::bigint FROM message_documents WHERE seq % 500 > 2";
    let before: i64 = query_scalar(untouched).fetch_one(&mut raw).await.unwrap();
    // Before the one that copies all rows.
    migrations_upto(sqlx::migrate!("migrations/postgres"), 15)
        .run_direct(None, &mut raw, false)
        .await
        .unwrap();
    let after: i64 = query_scalar(untouched).fetch_one(&mut raw).await.unwrap();
    assert_eq!(before, after, "other documents are not written");
    let store = PostgresStore::new(options.clone(), 2);
    store.prepare(true).await.unwrap();
    let equal =
        "SELECT count(*) FROM message_documents d JOIN messages m USING (conversation_id, seq)
                 WHERE d.words = search_words(d.config, m.content)";
    let equal: i64 = query_scalar(equal).fetch_one(&mut raw).await.unwrap();
    assert_eq!(equal, 2500, "a repaired document is that of a new message");
    // A repetition, as after an interruption, changes nothing.
    query("DELETE FROM _sqlx_migrations WHERE version IN (7, 8)")
        .execute(&mut raw)
        .await
        .unwrap();
    let store = PostgresStore::new(options.clone(), 2);
    store.prepare(true).await.unwrap();
    assert_restores(&server, &options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_hostile_texts_are_intact_in_sqlite() {
    let texts = hostile_texts();
    for languages in [Languages::default(), Languages::NONE] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.db");
        let store = SqliteStore::with_languages(&file, languages).unwrap();
        store.prepare(true).await.unwrap();
        let conversation = fill(&store, &texts).await;
        // Searches need not wait for the analysis of all texts.
        store.reindex(None).await.unwrap();
        search_all(&store, &conversation, &texts).await;
        check_integrity(&file).await;
        store
            .delete(
                &conversation,
                conversation_memory::store::Invalidation::Never,
            )
            .await
            .unwrap();
        check_integrity(&file).await;
    }
}

async fn check_integrity(file: &std::path::Path) {
    let options = SqliteConnectOptions::new().filename(file);
    let mut raw: SqliteConnection = options.connect().await.unwrap();
    let result: String = query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(result, "ok");
    raw.close().await.unwrap();
}
