//! Data that the version before typed parts has written.

use conversation_memory::{
    domain::{
        ConversationId, ConversationRef, Digest, Message, Metadata, NewMessage, RequestId, Role,
        UserId,
    },
    store::{
        Append, Appended, Bound, Newest, RequestIdentity, Store, postgres::PostgresStore,
        sqlite::SqliteStore,
    },
};
use sqlx::{
    ConnectOptions as _, PgConnection, SqliteConnection, migrate::Migrator, raw_sql,
    sqlite::SqliteConnectOptions,
};
use uuid::Uuid;

use crate::postgres::empty_schema;
use test_support::store_fixture::{append_of, message, truncation};

const CONVERSATION: &str = "01a20000-0000-7000-8000-000000000001";
const BRANCH: &str = "01a20000-0000-7000-8000-000000000002";
/// Form in which the Python client stored the tool calls of `OpenAI`.
const ORIGINAL: &str = r#"{"_original":{"form":"openai","json":"{\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"book\",\"arguments\":\"{}\"}}]}"}}"#;
/// Digest that the version before has computed for the first two messages.
const DIGEST: &str = "c9a5ca14bc792acab64fc371a89a8e9ff53b81b78c4d0f8fdec242d50ab7c8a0";

/// Statements that write the rows in the types of both databases. `ID` and `TIME` enclose values
/// that differ.
fn rows(id: impl Fn(&str) -> String, time: &str, digest: &str) -> String {
    let conversation = id(CONVERSATION);
    let branch = id(BRANCH);
    let message_id = |n: u32| id(&format!("01a20000-0000-7000-8000-0000000001{n:02}"));
    let (first, second, third) = (message_id(1), message_id(2), message_id(3));
    format!(
        "INSERT INTO conversations (id, user_id, title, last_seq, activity, created_at, updated_at)
         VALUES ({conversation}, 'ana', 'What is our vacation policy?', 3, 1000, {time}, {time});
         INSERT INTO messages (conversation_id, seq, id, role, content, metadata, created_at)
         VALUES ({conversation}, 1, {first}, 'user', 'What is our vacation policy?', NULL, {time}),
                ({conversation}, 2, {second}, 'assistant', '', '{{\"a\":1.5}}', {time}),
                ({conversation}, 3, {third}, 'tool', 'booked', '{ORIGINAL}', {time});
         INSERT INTO message_contexts (conversation_id, seq, position, doc_id, content)
         VALUES ({conversation}, 2, 0, 'hr.pdf', '25 days');
         INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, created_at)
         VALUES ({conversation}, 'turn-1', {digest}, 1, 2, {time});
         INSERT INTO conversations (id, user_id, title, last_seq, activity, created_at, updated_at,
                                    own_after, parent_id, branched_at_seq)
         VALUES ({branch}, 'ana', 'What is our vacation policy?', 2, 1001, {time}, {time},
                 2, {conversation}, 2);
         INSERT INTO lineage (conversation_id, source_id, after_seq, upto_seq)
         VALUES ({branch}, {conversation}, 0, 2);"
    )
}

/// Returns the version of the schema that migrations lead to.
pub(crate) fn latest_version(migrator: &Migrator) -> i64 {
    let versions = migrator.migrations.iter().map(|m| m.version);
    versions.max().unwrap()
}

/// Returns the migrations that the version before had.
fn migrations_before(mut migrator: Migrator) -> Migrator {
    let before = migrator.migrations.iter().filter(|m| m.version <= 3);
    migrator.migrations = before.cloned().collect::<Vec<_>>().into();
    migrator
}

fn reference(id: &str) -> ConversationRef {
    ConversationRef {
        id: ConversationId::from_uuid(id.parse::<Uuid>().unwrap()),
        user_id: Some(UserId::parse("ana").unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_the_previous_version_is_kept_in_postgres() {
    let options = empty_schema().await;
    let mut raw: PgConnection = options.connect().await.unwrap();
    migrations_before(sqlx::migrate!("migrations/postgres"))
        .run_direct(None, &mut raw, false)
        .await
        .unwrap();
    let id = |id: &str| format!("'{id}'::uuid");
    let digest = format!("'\\x{DIGEST}'::bytea");
    let time = "'2026-11-22 10:00:00.000001Z'::timestamptz";
    let rows = rows(id, time, &digest);
    raw_sql(sqlx::AssertSqlSafe(rows))
        .execute(&mut raw)
        .await
        .unwrap();
    let store = PostgresStore::new(options, 2);
    store.prepare(true).await.unwrap();
    check_data_is_kept(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_the_previous_version_is_kept_in_sqlite() {
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
    let id = |id: &str| format!("'{id}'");
    let rows = rows(id, "1795341600000001", &format!("x'{DIGEST}'"));
    raw_sql(sqlx::AssertSqlSafe(rows))
        .execute(&mut raw)
        .await
        .unwrap();
    let store = SqliteStore::open(&file).unwrap();
    store.prepare(true).await.unwrap();
    check_data_is_kept(&store).await;
}

async fn check_data_is_kept(store: &dyn Store) {
    let (conversation, branch) = (reference(CONVERSATION), reference(BRANCH));
    let Newest {
        conversation: found,
        pinned,
        summary,
        messages,
        ..
    } = store.newest(&conversation, 10, true).await.unwrap();
    assert_eq!((found.last_seq, found.compacted_upto_seq), (3, 0));
    assert!(pinned.is_empty() && summary.is_none());
    let texts: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
    assert_eq!(texts, ["What is our vacation policy?", "", "booked"]);
    assert_eq!(messages[1].contexts[0].content.as_str(), "25 days");
    let metadata = messages[2].metadata.as_ref().map(Metadata::to_json);
    assert_eq!(metadata.as_deref(), Some(ORIGINAL));
    assert!(
        messages
            .iter()
            .all(|m| m.parts.is_empty() && m.token_count.is_none())
    );
    assert_eq!(messages[0].tokens(), 7, "estimated from the size");

    let first_two = [
        NewMessage {
            role: Role::User,
            ..message("What is our vacation policy?")
        },
        NewMessage {
            role: Role::Assistant,
            metadata: Metadata::from_json(r#"{"a":1.5}"#, 100).ok(),
            ..message("")
        },
    ];
    let retry = Append {
        request: Some(RequestIdentity {
            id: RequestId::parse("turn-1").unwrap(),
            digest: Digest::of_messages(&first_two),
        }),
        ..append_of(&conversation, first_two.to_vec())
    };
    let replayed = store.append(&retry).await.unwrap();
    assert!(matches!(replayed, Appended::Replayed { last_seq: 2, .. }));

    let shared = store
        .messages(&branch, Bound::After(0), 10, false)
        .await
        .unwrap();
    let seqs: Vec<i64> = shared.iter().map(|message: &Message| message.seq).collect();
    assert_eq!(seqs, [1, 2]);
    let saved = store
        .append(&append_of(&conversation, vec![message("more")]))
        .await;
    let saved = saved.unwrap();
    assert!(matches!(saved, Appended::Saved { first_seq: 4, .. }));

    // The title was derived from the first message, which this removes.
    store.truncate(&truncation(&conversation, 0)).await.unwrap();
    assert_eq!(store.get(&conversation).await.unwrap().title, None);
    assert!(store.get(&branch).await.unwrap().title.is_some());
}
