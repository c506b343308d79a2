//! Metrics of the connection pools: use, limits, wait times and timeouts.

use std::{collections::BTreeMap, time::Duration};

use conversation_memory::store::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use sqlx::{ConnectOptions as _, Connection as _, query};

use crate::meter::{Meter, Point, values};
use test_support::{
    eventually,
    store_fixture::{
        append_of, at, new_conversation, owned_ref, server_options, user, with_chosen_id,
    },
    within_progress,
};

const NAME: &str = "db.client.connection.pool.name";
const MAX: &str = "db.client.connection.max";
const WAIT_TIME: &str = "db.client.connection.wait_time";
const TIMEOUTS: &str = "db.client.connection.timeouts";

/// Number of connections by pool and state.
fn connections(meter: &Meter) -> BTreeMap<(String, String), f64> {
    let key_and_value = |mut point: Point| {
        assert_eq!(point.unit, "{connection}");
        let mut take = |label: &str| point.labels.remove(label).unwrap();
        let key = (take(NAME), take("db.client.connection.state"));
        assert!(point.labels.is_empty(), "{point:?}");
        (key, point.sum)
    };
    let points = meter.points("db.client.connection.count").into_iter();
    points.map(key_and_value).collect()
}

fn expected<const N: usize>(states: [(&str, &str, u32); N]) -> BTreeMap<(String, String), f64> {
    states
        .map(|(pool, state, count)| ((pool.to_owned(), state.to_owned()), count.into()))
        .into()
}

/// Number of waits for a connection of a pool, and their total in seconds.
fn waits(meter: &Meter, pool: &str) -> (u64, f64) {
    let mut points = meter.points(WAIT_TIME).into_iter();
    let point = points.find(|point| point.labels[NAME] == pool);
    point.map_or((0, 0.0), |point| {
        assert_eq!((point.unit.as_str(), point.labels.len()), ("s", 1));
        (point.count, point.sum)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_is_reported() {
    let meter = Meter::start().await;
    let store = PostgresStore::new(server_options(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    let conversation = owned_ref(&new);
    eventually("the connection is returned", async || {
        connections(&meter) == expected([("postgresql", "idle", 1), ("postgresql", "used", 0)])
    })
    .await;
    assert_eq!(meter.by(MAX, NAME), values([("postgresql", 1)]));
    let (before, fast) = waits(&meter, "postgresql");
    assert!(before > 0 && fast < 5.0);
    assert_eq!(meter.by(TIMEOUTS, NAME), values([]));

    // A save that waits for a row lock holds the only connection.
    let mut other = server_options().connect().await.unwrap();
    let mut lock = other.begin().await.unwrap();
    query("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(conversation.id.as_uuid())
        .execute(&mut *lock)
        .await
        .unwrap();
    let save = append_of(&conversation, vec![with_chosen_id("one")]);
    let held = store.append(&save);
    let refused = async {
        eventually("the connection is used", async || {
            connections(&meter) == expected([("postgresql", "idle", 0), ("postgresql", "used", 1)])
        })
        .await;
        let refused = store.get(&conversation).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
        // A cancelled wait is recorded too.
        let left = tokio::time::timeout(Duration::from_millis(100), store.get(&conversation));
        assert!(left.await.is_err());
        lock.rollback().await.unwrap();
    };
    let (held, ()) = tokio::join!(held, refused);
    held.unwrap();
    assert_eq!(meter.by(TIMEOUTS, NAME), values([("postgresql", 1)]));
    let (count, slow) = waits(&meter, "postgresql");
    assert_eq!(count, before + 3);
    assert!(slow - fast > 0.9, "{fast} {slow}");
    store.close().await;
    drop(store);
    assert_eq!(connections(&meter), expected([]), "the pool was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pools_of_writer_and_readers_are_reported_separately() {
    let meter = Meter::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("memory.db")).unwrap();
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = owned_ref(&new);
    store.create(&new, at(0)).await.unwrap();
    // Work in the background uses both, too.
    assert!(waits(&meter, "sqlite.writer").0 >= 1);
    let before = waits(&meter, "sqlite.readers").0;
    store.get(&conversation).await.unwrap();
    store.get(&conversation).await.unwrap();
    assert!(waits(&meter, "sqlite.readers").0 >= before + 2);
    // A connection is returned asynchronously, and work in the background reads, too: several
    // readers may be open.
    let is_idle = |states: &BTreeMap<(String, String), f64>| {
        let mut states = states.clone();
        let readers = states.remove(&("sqlite.readers".to_owned(), "idle".to_owned()));
        readers.is_some_and(|idle| (1.0..=4.0).contains(&idle))
            && states
                == expected([
                    ("sqlite.writer", "idle", 1),
                    ("sqlite.writer", "used", 0),
                    ("sqlite.readers", "used", 0),
                    ("sqlite.searchers", "idle", 0),
                    ("sqlite.searchers", "used", 0),
                ])
    };
    within_progress(
        "all connections are returned",
        async || connections(&meter),
        is_idle,
    )
    .await;
    assert_eq!(
        meter.by(MAX, NAME),
        values([
            ("sqlite.writer", 1),
            ("sqlite.readers", 4),
            ("sqlite.searchers", 2)
        ])
    );
    store.close().await;
}
