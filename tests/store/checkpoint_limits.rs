//! Bounds on reads and removals of checkpoints, whatever their callers have stored.

use bytes::Bytes;
use conversation_memory::{
    domain::{ChannelData, ChannelWrite, CheckpointData, Contents, ConversationRef, Piece},
    store::{AncestorQuery, PutWrites, StoreError, checkpoints::MAX_WRITE_CALLS},
};
use test_support::store_fixture::StoreFixture;

use crate::checkpoints::{get, id, put, root, with_list, write};

pub(crate) async fn ancestors_in_a_circle_are_examined_once(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    for (number, parent) in [(0, 1), (1, 2), (2, 0), (3, 2)] {
        let mut put = put(&thread, number);
        put.checkpoint.parent_id = Some(id(parent));
        put.checkpoint.metadata = r#"{"counters_since_delta_snapshot": {"c": [1, 1]}}"#.to_owned();
        fixture.store.put_checkpoint(&put).await.unwrap();
    }
    let removed = fixture.store.prune_checkpoints(&thread).await.unwrap();
    assert_eq!(removed, 0, "the latest checkpoint needs all others");
    let query = AncestorQuery {
        conversation: thread,
        namespace: root(),
        id: None,
        channels: vec!["c".to_owned()],
    };
    let page = fixture.store.checkpoint_ancestors(&query).await.unwrap();
    assert_eq!(page.records.len(), 3);
    assert!(page.next.is_none());
}

pub(crate) async fn data_counts_at_each_of_its_places(fixture: &StoreFixture) {
    const ITEMS: usize = 100;
    let thread = fixture.create_conversation().await;
    let mut items = vec!["y".repeat(1000)];
    items.extend(vec!["x".repeat(500_000); ITEMS]);
    let large = with_list(put(&thread, 0), "1", None, &items);
    fixture.store.put_checkpoint(&large).await.unwrap();
    let page = get(fixture, &thread, 0).await;
    let ChannelData::List(read) = &page.records[0].checkpoint.values[0].data else {
        panic!("the value is a list");
    };
    assert_eq!(read.len(), ITEMS + 1);
    // What is left out is read by its digest.
    let [(_, data)] = &page.contents[..] else {
        panic!("{} contents", page.contents.len());
    };
    assert_eq!(data.len(), 1000);
    let Piece::Stored(digest) = read[1].pieces[0] else {
        panic!("the data is stored once");
    };
    let contents = fixture.store.checkpoint_contents(&thread, &[digest]).await;
    assert_eq!(contents.unwrap()[0].len(), 500_000);
}

pub(crate) async fn writes_that_exceed_a_response_are_rejected(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let first = put(&thread, 0);
    fixture.store.put_checkpoint(&first).await.unwrap();
    let zeros = vec![Piece::Inline(Bytes::from_static(&[0; 128])); 1000];
    for call in 0..12 {
        let writes = (0..8).map(|index| ChannelWrite {
            task_id: format!("task {call}"),
            task_path: String::new(),
            index,
            channel: "channel".to_owned(),
            data: ChannelData::Single(CheckpointData {
                kind: "bytes".to_owned(),
                pieces: zeros.clone(),
            }),
        });
        let put = PutWrites {
            conversation: thread.clone(),
            thread_name: None,
            namespace: root(),
            checkpoint_id: id(0),
            writes: writes.collect(),
            contents: Contents::default(),
        };
        fixture.store.put_writes(&put).await.unwrap();
    }
    let read = fixture
        .store
        .checkpoint(&thread, &root(), Some(id(0)))
        .await;
    assert!(
        matches!(read, Err(StoreError::CheckpointTooLarge)),
        "{read:?}"
    );
}

/// Stores copies of the only write of a thread, which many calls would take long to store.
async fn copy_writes(fixture: &StoreFixture, thread: &ConversationRef, copies: u32) {
    let id = thread.id;
    let of_thread = format!(
        "FROM checkpoint_task_writes w JOIN checkpoint_namespaces n ON n.id = w.namespace_id \
             JOIN checkpoint_threads t ON t.id = n.thread_id AND t.conversation_id = '{id}'"
    );
    let insert = "INSERT INTO checkpoint_task_writes (namespace_id, checkpoint_id, digest, body)";
    let postgres = format!(
        "{insert} SELECT w.namespace_id, w.checkpoint_id, gen_random_uuid(), w.body \
         {of_thread} CROSS JOIN generate_series(1, {copies})"
    );
    let sqlite = format!(
        "WITH RECURSIVE s (number) AS \
             (SELECT 1 UNION ALL SELECT number + 1 FROM s WHERE number < {copies}) \
         {insert} SELECT w.namespace_id, w.checkpoint_id, randomblob(16), w.body \
         {of_thread} CROSS JOIN s"
    );
    fixture.execute(&postgres, &sqlite).await;
}

pub(crate) async fn writes_of_too_many_calls_are_rejected(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    fixture
        .store
        .put_checkpoint(&put(&thread, 0))
        .await
        .unwrap();
    let call = |number: u32| {
        let mut put = write(&thread, 0, 0, "written");
        put.writes[0].task_id = format!("task {number}");
        async move { fixture.store.put_writes(&put).await }
    };
    call(7).await.unwrap();
    copy_writes(fixture, &thread, MAX_WRITE_CALLS - 2).await;
    call(8).await.unwrap();
    let rejected = call(MAX_WRITE_CALLS).await;
    assert!(
        matches!(
            rejected,
            Err(StoreError::TooManyWrites {
                max: MAX_WRITE_CALLS
            })
        ),
        "{rejected:?}"
    );
    // A retry is no further call.
    call(7).await.unwrap();
    let page = get(fixture, &thread, 0).await;
    let tasks = page.records[0].writes.iter().map(|it| &it.task_id);
    assert!(tasks.eq(["task 7", "task 8"]));
}
