//! Writes of many messages: other writes do not wait for them, and they are all or nothing.

use std::{fs::File, sync::Arc, time::Duration};

use conversation_memory::{
    domain::{ConversationRef, NewConversation, NumberedMessage},
    store::{Invalidation, Store, StoreError, sqlite::SqliteStore},
};
use sqlx::{ConnectOptions as _, Connection as _, query_scalar, raw_sql};
use tokio::task::JoinSet;

use crate::{branches::branch_of, imports::imported, search::query, sqlite_checkpoints::raw};
use test_support::{
    eventually,
    store_fixture::{
        StoreFixture, append_of, at, message, new_conversation, owned_ref, server_options,
        truncation, turn, user,
    },
};

/// More messages than a store writes within the time that a call waits for it.
const MANY: i64 = 12_000;

/// Saves turns of another user until a write has ended, and returns its outcome.
async fn with_turns<T: Send + 'static>(
    fixture: &StoreFixture,
    write: impl Future<Output = T> + Send + 'static,
) -> T {
    let other = fixture.create_conversation().await;
    let mut writes = JoinSet::new();
    writes.spawn(write);
    let mut turns = 0;
    loop {
        if let Some(outcome) = writes.try_join_next() {
            return outcome.unwrap();
        }
        fixture
            .store
            .append(&turn(&other, &["turn"]))
            .await
            .unwrap();
        turns += 1;
        let newest = fixture.store.newest(&other, 1, false).await.unwrap();
        assert_eq!(newest.messages[0].seq, turns);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Imports a conversation of many messages while another user saves turns.
async fn import_many(fixture: &StoreFixture) -> ConversationRef {
    let conversation = imported(user());
    let mut import = fixture.store.import(&conversation).await.unwrap();
    let numbers: Vec<i64> = (1..=MANY).collect();
    for batch in numbers.chunks(500) {
        let messages: Vec<NumberedMessage> = batch
            .iter()
            .map(|seq| NumberedMessage {
                seq: *seq,
                message: message(format!("message number {seq} of many")),
            })
            .collect();
        import.add(&messages).await.unwrap();
    }
    let finish = import.finish(MANY);
    let reference = ConversationRef {
        id: conversation.id,
        user_id: Some(conversation.user_id.clone()),
    };
    let mut reader = JoinSet::new();
    {
        let (store, reference) = (Arc::clone(&fixture.store), reference.clone());
        let query = query(&conversation.user_id, "many");
        reader.spawn(async move {
            loop {
                let found = store.search(&query).await.unwrap().hits.len();
                match store.newest(&reference, 1, false).await {
                    Err(StoreError::NotFound) => assert_eq!(found, 0),
                    Ok(newest) => break assert_eq!(newest.messages[0].seq, MANY),
                    Err(error) => panic!("{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    with_turns(fixture, finish).await.unwrap();
    reader.join_all().await;
    let found = query(&conversation.user_id, "number 11999");
    assert_eq!(fixture.store.search(&found).await.unwrap().hits.len(), 1);
    reference
}

pub(crate) async fn imports_of_many_messages_do_not_delay_turns(fixture: &StoreFixture) {
    let conversation = import_many(fixture).await;
    assert_eq!(fixture.count_stored(&[conversation.id]).await, MANY);
    assert_eq!(
        fixture.append_texts(&conversation, &["next"]).await,
        MANY + 1
    );
}

pub(crate) async fn removals_of_many_messages_do_not_delay_turns(fixture: &StoreFixture) {
    let conversation = import_many(fixture).await;
    let branch = fixture.branch(&branch_of(&conversation, 10)).await;
    let (store, of) = (Arc::clone(&fixture.store), truncation(&conversation, 100));
    let truncate = async move { store.truncate(&of).await };
    let truncated = with_turns(fixture, truncate).await.unwrap();
    assert_eq!((truncated.removed, truncated.last_seq), (MANY - 100, MANY));
    assert_eq!(fixture.seqs(&conversation).await.len(), 100);
    assert_eq!(fixture.count_stored(&[conversation.id]).await, 100);
    let user = conversation.user_id.clone().unwrap();
    let found = fixture.store.search(&query(&user, "many")).await.unwrap();
    assert_eq!(found.hits.len(), 100);
    assert!(!found.more);
    // The conversation continues after the removed messages.
    let texts: Vec<_> = (0..MANY).map(|_| message("again and again")).collect();
    for batch in texts.chunks(500) {
        let append = append_of(&conversation, batch.to_vec());
        fixture.save(&append).await.unwrap();
    }
    assert_eq!(fixture.count_stored(&[conversation.id]).await, MANY + 100);
    let (store, of) = (Arc::clone(&fixture.store), conversation.clone());
    let delete = async move { store.delete(&of, Invalidation::Never).await };
    with_turns(fixture, delete).await.unwrap();
    assert_eq!(fixture.count_stored(&[conversation.id]).await, 10);
    assert_eq!(fixture.texts(&branch).await.len(), 10);
    let found = fixture.store.search(&query(&user, "again")).await.unwrap();
    assert!(found.hits.is_empty());
}

/// Counts the messages in a file, and what is recorded about their removal.
async fn counts(file: &std::path::Path) -> (i64, i64) {
    let mut connection = raw(file).await;
    let messages = query_scalar("SELECT count(*) FROM messages");
    let messages = messages.fetch_one(&mut connection).await.unwrap();
    let pending = query_scalar("SELECT count(*) FROM pending_removals");
    (messages, pending.fetch_one(&mut connection).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_left_by_a_crash_are_invisible_and_deleted_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    let kept = fixture.create_conversation().await;
    fixture
        .append_texts(&kept, &["kept word", "removed word", "removed word"])
        .await;
    let user = kept.user_id.clone().unwrap();
    // What is stored when a truncation and an import are interrupted.
    let importing = imported(user.clone()).id;
    let left = format!(
        "UPDATE conversations SET own_after = 3 WHERE id = '{kept}'; \
         INSERT INTO lineage (conversation_id, source_id, after_seq, upto_seq) \
         VALUES ('{kept}', '{kept}', 0, 1); \
         INSERT INTO messages (conversation_id, seq, id, role, content, created_at) \
         VALUES ('{importing}', 7, '{importing}', 'user', 'imported', 1); \
         INSERT INTO message_blobs (conversation_id, seq, position, data) \
         VALUES ('{importing}', 7, 0, x'00'); \
         INSERT INTO pending_removals (source_id, after_seq, upto_seq, is_import) \
         VALUES ('{kept}', 1, 3, 0), ('{importing}', 0, 9223372036854775807, 1);",
        kept = kept.id
    );
    let mut connection = raw(&file).await;
    raw_sql(sqlx::AssertSqlSafe(left))
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(fixture.texts(&kept).await, ["kept word"]);
    let found = fixture.store.search(&query(&user, "word")).await.unwrap();
    assert_eq!(found.hits.len(), 1);
    // Another process that opens the store leaves an import in progress alone.
    let lock = file.with_extension(format!("import-{importing}"));
    let held = File::create(&lock).unwrap();
    held.lock().unwrap();
    let second = SqliteStore::open(&file).unwrap();
    second.prepare(false).await.unwrap();
    eventually("the truncated messages are deleted", async || {
        counts(&file).await == (2, 1)
    })
    .await;
    second.close().await;
    drop(held);
    let third = SqliteStore::open(&file).unwrap();
    third.prepare(false).await.unwrap();
    eventually("the imported messages are deleted", async || {
        counts(&file).await == (1, 0)
    })
    .await;
    third.close().await;
    assert!(!lock.exists());
    assert_eq!(fixture.append_texts(&kept, &["next"]).await, 4);
    assert_eq!(fixture.texts(&kept).await, ["kept word", "next"]);
}

/// Conversation that many saves have written to, as its requests are stored.
async fn add_requests(file: &std::path::Path, conversation: &ConversationRef, number: i64) {
    let requests = format!(
        "INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, created_at) \
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {number}) \
         SELECT '{id}', 'request ' || i, zeroblob(32), i, i, 1 FROM n",
        id = conversation.id
    );
    let mut connection = raw(file).await;
    raw_sql(sqlx::AssertSqlSafe(requests))
        .execute(&mut connection)
        .await
        .unwrap();
}

async fn count_requests(file: &std::path::Path) -> i64 {
    let mut connection = raw(file).await;
    let requests = query_scalar("SELECT count(*) FROM requests");
    requests.fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_deleted_conversation_are_deleted_between_turns() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    let conversation = fixture.create_conversation().await;
    fixture.append_texts(&conversation, &["saved"]).await;
    add_requests(&file, &conversation, 400_000).await;
    let (store, of) = (Arc::clone(&fixture.store), conversation.clone());
    let delete = async move { store.delete(&of, Invalidation::Never).await };
    with_turns(&fixture, delete).await.unwrap();
    eventually("the requests are deleted", async || {
        count_requests(&file).await == 0
    })
    .await;
    assert_eq!(counts(&file).await.1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_left_by_a_crash_are_deleted_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(SqliteStore::open(&file).unwrap()).await;
    let kept = fixture.create_conversation().await;
    // What is stored when a deletion is interrupted.
    let deleted = owned_ref(&new_conversation(kept.user_id.as_ref().unwrap()));
    add_requests(&file, &deleted, 1_000).await;
    add_requests(&file, &kept, 10).await;
    let left = format!(
        "INSERT INTO pending_removals (source_id, after_seq, upto_seq) VALUES ('{}', 0, 0)",
        deleted.id
    );
    let mut connection = raw(&file).await;
    raw_sql(sqlx::AssertSqlSafe(left))
        .execute(&mut connection)
        .await
        .unwrap();
    // Meanwhile, an old request cannot be taken for one of a new conversation with this id.
    let new = NewConversation {
        id: deleted.id,
        ..new_conversation(kept.user_id.as_ref().unwrap())
    };
    let reused = fixture.store.create(&new, at(0)).await;
    assert!(
        matches!(reused, Err(StoreError::AlreadyExists(_))),
        "{reused:?}"
    );
    let second = SqliteStore::open(&file).unwrap();
    second.prepare(false).await.unwrap();
    eventually("the requests are deleted", async || {
        count_requests(&file).await == 10 && counts(&file).await.1 == 0
    })
    .await;
    second.close().await;
    fixture.store.create(&new, at(0)).await.unwrap();
}

/// Removals that wait for each other use only a part of the connections.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_removals_leave_connections_for_turns() {
    let fixture = StoreFixture::postgres().await;
    let locked = fixture.create_conversation().await;
    fixture.append_texts(&locked, &["1"]).await;
    let mut connection = server_options().connect().await.unwrap();
    let mut lock = connection.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(locked.id.as_uuid())
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut removals = JoinSet::new();
    for number in 0..20 {
        let (store, locked) = (Arc::clone(&fixture.store), locked.clone());
        removals.spawn(async move {
            if number % 2 == 0 {
                store.truncate(&truncation(&locked, 0)).await.map(drop)
            } else {
                store.delete(&locked, Invalidation::Never).await
            }
        });
    }
    let other = fixture.create_conversation().await;
    for _ in 0..40 {
        fixture
            .store
            .append(&turn(&other, &["turn"]))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.rollback().await.unwrap();
    let outcomes = removals.join_all().await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for outcome in outcomes {
        let is_expected = matches!(
            outcome,
            Ok(()) | Err(StoreError::NotFound | StoreError::Unavailable(_))
        );
        assert!(is_expected, "{outcome:?}");
    }
}
