//! Tests of the store on SQLite only.

use std::{path::Path, sync::Arc};

use conversation_memory::{
    domain::ConversationRef,
    store::{Invalidation, Newest, SchemaError, Store, StoreError, sqlite::SqliteStore},
    text_analysis::Languages,
};
use sqlx::{ConnectOptions, Connection, SqliteConnection, query, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;

use crate::search::assert_forms;
use crate::upgrades::latest_version;
use test_support::{
    eventually,
    store_fixture::{StoreFixture, at, new_conversation, owned_ref, turn, user},
};

fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(file).unwrap()
}

async fn raw(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(file)
        .connect()
        .await
        .unwrap()
}

async fn create_conversation(store: &SqliteStore) -> ConversationRef {
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    owned_ref(&new)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survives_reopening_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/er/memory.db");
    let store = open(&file);
    store.prepare(true).await.unwrap();
    let conversation = create_conversation(&store).await;
    store
        .append(&turn(&conversation, &["one", "two"]))
        .await
        .unwrap();
    let before = store.newest(&conversation, 10, true).await.unwrap();
    store.close().await;
    assert!(matches!(
        store.get(&conversation).await,
        Err(StoreError::Unavailable(_))
    ));
    let store = open(&file);
    store.prepare(false).await.unwrap();
    assert_eq!(store.newest(&conversation, 10, true).await.unwrap(), before);
    assert_eq!(before.messages.len(), 2);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(file.parent().unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn files_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all).unwrap();
    let store = open(&folder.path().join("memory.db"));
    store.prepare(true).await.unwrap();
    create_conversation(&store).await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["memory.db", "memory.db-shm", "memory.db-wal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_prepare_calls_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let mut tasks = JoinSet::new();
    for _ in 0..6 {
        let store = open(&file);
        tasks.spawn(async move { store.prepare(true).await.unwrap() });
    }
    tasks.join_all().await;
    create_conversation(&open(&file)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_can_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let stores = [Arc::new(open(&file)), Arc::new(open(&file))];
    stores[0].prepare(true).await.unwrap();
    let conversation = create_conversation(&stores[0]).await;
    let mut tasks = JoinSet::new();
    for store in stores.iter().cycle().take(4) {
        let (store, conversation) = (Arc::clone(store), conversation.clone());
        tasks.spawn(async move {
            for _ in 0..25 {
                // The other store can hold the lock for longer than a save waits.
                while let Err(error) = store.append(&turn(&conversation, &["x"])).await {
                    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                }
            }
        });
    }
    tasks.join_all().await;
    for store in stores {
        let Newest {
            conversation: found,
            messages,
            ..
        } = store.newest(&conversation, 1_000, false).await.unwrap();
        let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
        assert_eq!((found.last_seq, seqs), (100, (1..=100).collect()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_file_is_unavailable_until_the_lock_is_released() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let store = open(&file);
    store.prepare(true).await.unwrap();
    let conversation = create_conversation(&store).await;
    let mut other = raw(&file).await;
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let refused = store.append(&turn(&conversation, &["one"])).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(store.get(&conversation).await.unwrap().last_seq, 0);
    lock.rollback().await.unwrap();
    store.append(&turn(&conversation, &["one"])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_reports_other_schema_versions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let store = open(&file);
    let latest = latest_version(&sqlx::migrate!("migrations/sqlite"));
    assert!(matches!(
        store.prepare(false).await,
        Err(SchemaError::Older { found: 0, wanted }) if wanted == latest
    ));
    assert!(!file.exists(), "the check does not create the file");
    store.prepare(true).await.unwrap();
    let mut raw = raw(&file).await;
    query("UPDATE _sqlx_migrations SET checksum = x'00'")
        .execute(&mut raw)
        .await
        .unwrap();
    assert!(matches!(
        store.prepare(true).await,
        Err(SchemaError::Changed { version: 1 })
    ));
    query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (999, 'from the future', true, x'00', 0)",
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
async fn unusable_files_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    std::fs::write(
        &file,
        "This is no database, and long enough to be looked at. ".repeat(100),
    )
    .unwrap();
    let store = open(&file);
    assert!(store.prepare(true).await.is_err());
    let conversation = owned_ref(&new_conversation(&user()));
    assert!(matches!(
        store.get(&conversation).await,
        Err(StoreError::Internal(_))
    ));

    let empty = folder.path().join("empty.db");
    let store = open(&empty);
    assert!(matches!(
        store.get(&conversation).await,
        Err(StoreError::Unavailable(_))
    ));
    let blocked = file.join("below/a/file.db");
    assert!(SqliteStore::open(&blocked).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_analyzed_again_in_other_languages() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let english = StoreFixture::prepared(open(&file)).await;
    let conversation = english.create_conversation().await;
    let user = conversation.user_id.clone().unwrap();
    english.append_texts(&conversation, &["1 the policy"]).await;
    assert_forms(&english, &user, &["1 the policy"], &[]).await;
    english.store.close().await;
    let store = SqliteStore::with_languages(&file, Languages::NONE).unwrap();
    let simple = StoreFixture::prepared(store).await;
    simple
        .append_texts(&conversation, &["2 the policies"])
        .await;
    let by_form = |text: &str| crate::search::query(&user, text);
    let found = crate::search::found(&simple, &by_form("policy")).await;
    assert_eq!(found, ["1 the policy"]);
    let found = crate::search::found(&simple, &by_form("policies")).await;
    assert_eq!(found, ["2 the policies"]);
    eventually("the first message is analyzed again", async || {
        let found = crate::search::found(&simple, &by_form("the")).await;
        found.len() == 2
    })
    .await;
    simple.store.close().await;
    let english = StoreFixture::prepared(open(&file)).await;
    eventually("both messages are analyzed again", async || {
        let by_stem = crate::search::found(&english, &by_form("policies")).await;
        let by_stop_word = crate::search::found(&english, &by_form("the")).await;
        by_stem.len() == 2 && by_stop_word.is_empty()
    })
    .await;
    let both = ["1 the policy", "2 the policies"];
    assert_forms(&english, &user, &both, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removals_delete_search_documents() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let fixture = StoreFixture::prepared(open(&file)).await;
    let conversation = fixture.create_conversation().await;
    fixture
        .append_texts(&conversation, &["one", "two ⟦", "three"])
        .await;
    let truncation = test_support::store_fixture::truncation(&conversation, 1);
    fixture.store.truncate(&truncation).await.unwrap();
    let mut raw = raw(&file).await;
    fixture
        .store
        .delete(&conversation, Invalidation::Never)
        .await
        .unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM message_documents")
        .fetch_one(&mut raw)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
