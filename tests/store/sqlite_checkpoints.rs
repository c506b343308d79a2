//! Threads of the embedded store that are copied and deleted in several transactions.

use std::path::Path;

use conversation_memory::{
    domain::{CheckpointId, ContentDigest, ConversationRef},
    store::{CheckpointQuery, CheckpointStore as _, Invalidation, Store as _, sqlite::SqliteStore},
};
use sqlx::{
    ConnectOptions as _, SqliteConnection, query, query_scalar, sqlite::SqliteConnectOptions,
};
use test_support::store_fixture::{at, new_conversation, owned_ref, user};

use crate::checkpoints::{id, list, put, root, with_list, write};

/// Number of checkpoints of a thread, which are more than one transaction copies or deletes.
const COUNT: usize = 150;
const STEPS: u64 = COUNT as u64;

/// Opens a file beside the store.
pub(crate) async fn raw(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file);
    options.connect().await.unwrap()
}

/// Stores the checkpoints of a thread, each of which adds an item to a list. The first checkpoint gets a
/// write for each of them.
async fn put_steps(store: &SqliteStore, thread: &ConversationRef) {
    let mut version = None;
    for number in 0..STEPS {
        let next = number.to_string();
        let items = [format!("{number} ").repeat(100)];
        let base = version.as_deref();
        let base = base.map(|base| (base, usize::try_from(number).unwrap()));
        let put = with_list(put(thread, number), &next, base, &items);
        store.put_checkpoint(&put).await.unwrap();
        let text = format!("write {number} ").repeat(100);
        store
            .put_writes(&write(thread, 0, number.try_into().unwrap(), &text))
            .await
            .unwrap();
        version = Some(next);
    }
}

/// Ids of the checkpoints of a thread, and of their parents, the latest first.
async fn ids(
    store: &SqliteStore,
    thread: &ConversationRef,
) -> Vec<(CheckpointId, Option<CheckpointId>)> {
    let query = CheckpointQuery {
        conversation: thread.clone(),
        namespace: None,
        id: None,
        before: None,
        filter: serde_json::Map::new(),
        after: None,
        limit: 1000,
    };
    let found = store.checkpoints(&query).await.unwrap();
    assert_eq!(found.next, None);
    let found = found.records.into_iter().map(|record| record.checkpoint);
    found.map(|found| (found.id, found.parent_id)).collect()
}

/// Number of rows of all threads.
async fn rows(connection: &mut SqliteConnection) -> i64 {
    let counted = query_scalar(
        "SELECT (SELECT count(*) FROM checkpoint_threads) + (SELECT count(*) FROM checkpoint_namespaces) \
            + (SELECT count(*) FROM checkpoint_states) + (SELECT count(*) FROM checkpoint_values) \
            + (SELECT count(*) FROM checkpoint_task_writes) \
            + (SELECT count(*) FROM checkpoint_contents) + (SELECT count(*) FROM checkpoint_removals) \
            + (SELECT count(*) FROM checkpoint_removed_states)",
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
    put_steps(&store, &source).await;
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

/// Opens a store with a thread of [`STEPS`] checkpoints.
async fn open_with_thread(file: &Path) -> (SqliteStore, ConversationRef) {
    let store = SqliteStore::open(file).unwrap();
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    let thread = owned_ref(&new);
    put_steps(&store, &thread).await;
    (store, thread)
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_a_prune_disappear_together() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let (store, thread) = open_with_thread(&file).await;
    let prune = async {
        // A look at the thread before the removal.
        assert_eq!(ids(&store, &thread).await.len(), COUNT);
        store.prune_checkpoints(&thread).await.unwrap()
    };
    let mut looks = Vec::new();
    tokio::pin!(prune);
    let removed = loop {
        tokio::select! {
            removed = &mut prune => break removed,
            found = ids(&store, &thread) => looks.push(found),
        }
    };
    assert_eq!(removed, i64::try_from(STEPS - 1).unwrap());
    let last = [(id(STEPS - 1), None)];
    for found in looks {
        assert!(found.len() == COUNT || found == last, "{found:?}");
    }
    assert_eq!(ids(&store, &thread).await, last);
    // The thread, its namespace, the checkpoint, and the values and the data of its list.
    let mut connection = raw(&file).await;
    let steps = i64::try_from(STEPS).unwrap();
    assert_eq!(rows(&mut connection).await, 3 + 2 * steps);
    let base = (STEPS - 1).to_string();
    let base = Some((base.as_str(), COUNT));
    let next = with_list(put(&thread, STEPS), "next", base, &["next".to_owned()]);
    store.put_checkpoint(&next).await.unwrap();
    let found = store.checkpoint(&thread, &root(), None).await.unwrap();
    assert_eq!(list(&found).len(), COUNT + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_of_runs_keeps_the_other_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.db");
    let (store, thread) = open_with_thread(&file).await;
    let run = ContentDigest::of_run("run");
    let mut of_run = put(&thread, STEPS);
    of_run.run = Some(run);
    store.put_checkpoint(&of_run).await.unwrap();
    store
        .put_checkpoint(&put(&thread, STEPS + 1))
        .await
        .unwrap();
    assert_eq!(store.delete_runs(&thread, &[run]).await.unwrap(), 1);
    let found = ids(&store, &thread).await;
    assert_eq!(found.len(), COUNT + 1);
    assert_eq!(found[0], (id(STEPS + 1), None));
    assert_eq!(found[1].0, id(STEPS - 1));
}

/// The rows are those of a process that has ended during a removal of the first two checkpoints.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_a_process_has_left_is_completed_or_undone_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    for is_decided in [false, true] {
        let file = folder.path().join(format!("{is_decided}.db"));
        let (store, thread) = open_with_thread(&file).await;
        let all = ids(&store, &thread).await;
        let mut expected = all.clone();
        if is_decided {
            expected.truncate(COUNT - 2);
            expected.last_mut().unwrap().1 = None;
        }
        let mut connection = raw(&file).await;
        let marked = query(
            "INSERT INTO checkpoint_removed_states SELECT c.namespace_id, c.id \
             FROM checkpoint_states c ORDER BY c.id LIMIT 2",
        );
        marked.execute(&mut connection).await.unwrap();
        let begun = query(
            "INSERT INTO checkpoint_removals SELECT t.id, $1, x'00' FROM checkpoint_threads t",
        );
        let begun = begun.bind(i64::from(is_decided));
        begun.execute(&mut connection).await.unwrap();
        assert_eq!(ids(&store, &thread).await, expected);
        store.close().await;

        let store = SqliteStore::open(&file).unwrap();
        store.prepare(false).await.unwrap();
        // A write waits for the end of the removal.
        let next = put(&thread, STEPS);
        store.put_checkpoint(&next).await.unwrap();
        let left: i64 = query_scalar(
            "SELECT (SELECT count(*) FROM checkpoint_removals) \
                + (SELECT count(*) FROM checkpoint_removed_states)",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(left, 0);
        expected.insert(0, (id(STEPS), Some(id(STEPS - 1))));
        assert_eq!(ids(&store, &thread).await, expected);
        // All writes are those of the first checkpoint.
        let writes: i64 = query_scalar("SELECT count(*) FROM checkpoint_task_writes")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(writes == 0, is_decided);
        store.close().await;
    }
}
