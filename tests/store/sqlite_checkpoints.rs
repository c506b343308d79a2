//! Threads of the embedded store that are copied and deleted in several transactions.

use std::path::Path;

use conversation_memory::store::{
    CheckpointStore as _, Invalidation, Store as _, sqlite::SqliteStore,
};
use sqlx::{
    ConnectOptions as _, SqliteConnection, query, query_scalar, sqlite::SqliteConnectOptions,
};
use test_support::store_fixture::{at, new_conversation, owned_ref, user};

use crate::checkpoints::{id, list, put, root, with_list, write};

/// Number of checkpoints of a thread, which are more than one transaction copies or deletes.
const STEPS: u64 = 150;

/// Opens a file beside the store.
pub(crate) async fn raw(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.unwrap()
}

/// Number of rows of all threads.
async fn rows(connection: &mut SqliteConnection) -> i64 {
    let counted = query_scalar(
        "SELECT (SELECT count(*) FROM checkpoint_threads) + (SELECT count(*) FROM checkpoint_namespaces) \
            + (SELECT count(*) FROM checkpoint_states) + (SELECT count(*) FROM checkpoint_values) \
            + (SELECT count(*) FROM checkpoint_task_writes) \
            + (SELECT count(*) FROM checkpoint_contents)",
    );
    counted.fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_thread_is_copied_and_deleted_completely() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let store = SqliteStore::open(&file).unwrap();
    store.prepare(true).await.unwrap();
    let owner = user();
    let (source, target) = (new_conversation(&owner), new_conversation(&owner));
    for new in [&source, &target] {
        store.create(new, at(0)).await.unwrap();
    }
    let (source, target) = (owned_ref(&source), owned_ref(&target));
    let mut version = None;
    for number in 0..STEPS {
        let next = number.to_string();
        let items = [format!("{number} ").repeat(100)];
        let base = version.as_deref();
        let base = base.map(|base| (base, usize::try_from(number).unwrap()));
        let put = with_list(put(&source, number), &next, base, &items);
        store.put_checkpoint(&put).await.unwrap();
        let text = format!("write {number} ").repeat(100);
        store
            .put_writes(&write(&source, 0, number.try_into().unwrap(), &text))
            .await
            .unwrap();
        version = Some(next);
    }
    let mut connection = raw(&file).await;
    let before = rows(&mut connection).await;
    store
        .copy_checkpoints(&source, &target, None)
        .await
        .unwrap();
    assert_eq!(rows(&mut connection).await, 2 * before);
    for number in [0, 77, STEPS - 1] {
        let found = store
            .checkpoint(&source, &root(), Some(id(number)))
            .await
            .unwrap();
        let copied = store
            .checkpoint(&target, &root(), Some(id(number)))
            .await
            .unwrap();
        assert_eq!(list(&copied), list(&found));
        assert_eq!(copied.records[0].writes, found.records[0].writes);
    }
    for thread in [source, target] {
        store.delete(&thread, Invalidation::Never).await.unwrap();
    }
    assert_eq!(rows(&mut connection).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_has_left_is_deleted_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    for left in ["unfinished 1", "removed 1"] {
        let store = SqliteStore::open(&file).unwrap();
        store.prepare(true).await.unwrap();
        let new = new_conversation(&user());
        store.create(&new, at(0)).await.unwrap();
        let items = ["item".repeat(100)];
        let put = with_list(put(&owned_ref(&new), 0), "1", None, &items);
        store.put_checkpoint(&put).await.unwrap();
        store.close().await;
        let mut connection = raw(&file).await;
        let renamed = query("UPDATE checkpoint_threads SET conversation_id = $1").bind(left);
        renamed.execute(&mut connection).await.unwrap();
        assert_eq!(rows(&mut connection).await, 5);

        let store = SqliteStore::open(&file).unwrap();
        store.prepare(false).await.unwrap();
        while rows(&mut connection).await > 0 {
            tokio::task::yield_now().await;
        }
        store.close().await;
    }
}
