//! Checkpoints on PostgreSQL: the cost of reads, and puts through several sidecars.

use std::sync::Arc;

use conversation_memory::{
    domain::ConversationRef,
    store::{CheckpointStore as _, Store as _, postgres::PostgresStore},
};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions, query, query_as};
use test_support::store_fixture::{StoreFixture, server_options};

use crate::{
    checkpoints::{get, list, put, root, with_list, write},
    postgres::empty_schema,
};

/// Number of reads whose rows are counted together.
const READS: i64 = 20;

/// Returns how many scans of checkpoints there were, and how many rows were read from the tables of
/// checkpoints and the indexes. The server adds the counts of a session when the session ends.
async fn count(connection: &mut PgConnection) -> (i64, i64) {
    query_as(
        "SELECT sum(t.idx_scan) FILTER (WHERE t.relname = 'checkpoint_states')::bigint, \
            (sum(t.seq_tup_read) + sum((SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes i \
                WHERE i.relid = t.relid)))::bigint \
         FROM pg_stat_user_tables t \
         WHERE t.schemaname = current_schema AND t.relname LIKE 'checkpoint_%'",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

/// Counts the rows of reads of the latest checkpoint.
async fn rows_of_reads(options: &PgConnectOptions, thread: &ConversationRef) -> i64 {
    let mut counter = options.connect().await.unwrap();
    let before = count(&mut counter).await;
    let store = PostgresStore::new(options.clone(), 1);
    for _ in 0..READS {
        let page = store.checkpoint(thread, &root(), None).await.unwrap();
        assert_eq!(page.records[0].writes.len(), 1);
        assert_eq!(list(&page).len(), 1);
    }
    store.close().await;
    loop {
        let after = count(&mut counter).await;
        if after.0 >= before.0 + READS {
            return after.1 - before.1;
        }
        tokio::task::yield_now().await;
    }
}

/// The plans are made from tables that were never analyzed.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_checkpoint_costs_the_same_after_many_steps() {
    const STEPS: i64 = 10_000;
    let options = empty_schema().await;
    let fixture = StoreFixture::prepared(PostgresStore::new(options.clone(), 2)).await;
    let thread = fixture.create_conversation().await;
    let last = u64::try_from(STEPS).unwrap() + 100;
    let item = ["item".repeat(100)];
    for number in 0..10 {
        let put = with_list(put(&thread, number), &number.to_string(), None, &item);
        fixture.store.put_checkpoint(&put).await.unwrap();
    }
    let latest = with_list(put(&thread, last), "latest", None, &item);
    fixture.store.put_checkpoint(&latest).await.unwrap();
    let written = write(&thread, last, 0, &"text".repeat(100));
    fixture.store.put_writes(&written).await.unwrap();
    fixture.store.close().await;
    let few = rows_of_reads(&options, &thread).await;

    let mut connection = options.connect().await.unwrap();
    for statement in [
        "INSERT INTO checkpoint_states (namespace_id, id, parent_id, body) \
         SELECT c.namespace_id, lpad(to_hex(n + 50), 32, '0')::uuid, c.id, c.body \
         FROM generate_series(1, $1) n, (SELECT * FROM checkpoint_states LIMIT 1) c",
        "INSERT INTO checkpoint_task_writes (namespace_id, checkpoint_id, digest, body) \
         SELECT w.namespace_id, lpad(to_hex(n + 50), 32, '0')::uuid, w.digest, w.body \
         FROM generate_series(1, $1) n, (SELECT * FROM checkpoint_task_writes LIMIT 1) w",
        "INSERT INTO checkpoint_values (namespace_id, key, body) \
         SELECT v.namespace_id, gen_random_uuid(), v.body \
         FROM generate_series(1, $1) n, (SELECT * FROM checkpoint_values LIMIT 1) v",
        "INSERT INTO checkpoint_contents (thread_id, digest, size, data) \
         SELECT d.thread_id, gen_random_uuid(), d.size, d.data \
         FROM generate_series(1, $1) n, (SELECT * FROM checkpoint_contents LIMIT 1) d",
    ] {
        let inserted = query(statement).bind(STEPS).execute(&mut connection);
        assert_eq!(inserted.await.unwrap().rows_affected(), 10_000);
    }
    let many = rows_of_reads(&options, &thread).await;
    assert!(few > 0);
    assert_eq!(many, few);
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_through_two_sidecars_continue_the_same_list() {
    let first = StoreFixture::prepared(PostgresStore::new(server_options(), 2)).await;
    let second = StoreFixture::prepared(PostgresStore::new(server_options(), 2)).await;
    let thread = first.create_conversation().await;
    let store =
        |fixture: &StoreFixture, number, base: Option<(&'static str, usize)>, item: &str| {
            let version = ["a", "b", "c", "d", "e"][usize::try_from(number).unwrap()];
            let put = with_list(put(&thread, number), version, base, &[item.to_owned()]);
            let store = Arc::clone(&fixture.store);
            async move { store.put_checkpoint(&put).await.unwrap() }
        };
    store(&first, 0, None, "a").await;
    store(&first, 1, Some(("a", 1)), "b").await;
    // The other sidecar continues the list twice, and this one repeats the second of these puts.
    store(&second, 2, Some(("b", 2)), "c").await;
    store(&second, 3, Some(("b", 2)), "d").await;
    store(&first, 3, Some(("b", 2)), "d").await;
    store(&first, 4, Some(("d", 3)), "e").await;
    for (number, expected) in [(2, "abc"), (3, "abd"), (4, "abde")] {
        assert_eq!(list(&get(&first, &thread, number).await).concat(), expected);
    }
    // What this sidecar knows was removed by the other one.
    second.store.prune_checkpoints(&thread).await.unwrap();
    let missing = with_list(put(&thread, 6), "again", Some(("c", 3)), &["x".to_owned()]);
    first.store.put_checkpoint(&missing).await.unwrap_err();
    let last = with_list(put(&thread, 5), "f", Some(("e", 4)), &["f".to_owned()]);
    first.store.put_checkpoint(&last).await.unwrap();
    assert_eq!(list(&get(&first, &thread, 5).await).concat(), "abdef");
}
