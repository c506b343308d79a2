//! How much of the pools of connections is used, and how long calls wait for it.

use std::{collections::BTreeMap, time::Duration};

use conversation_memory::store::{Store, StoreError, postgres::PostgresStore, sqlite::SqliteStore};
use sqlx::{ConnectOptions as _, Connection as _, query};

use crate::meter::{Meter, Point, values};
use test_support::{
    eventually,
    world::{at, named, new_conversation, server, turn, user},
};

const NAME: &str = "db.client.connection.pool.name";
const MAX: &str = "db.client.connection.max";
const WAIT_TIME: &str = "db.client.connection.wait_time";
const TIMEOUTS: &str = "db.client.connection.timeouts";

/// The connections by pool and state.
fn connections(meter: &Meter) -> BTreeMap<(String, String), f64> {
    let tell = |mut point: Point| {
        assert_eq!(point.unit, "{connection}");
        let mut take = |label: &str| point.labels.remove(label).unwrap();
        let told = (take(NAME), take("db.client.connection.state"));
        assert!(point.labels.is_empty(), "{point:?}");
        (told, point.sum)
    };
    let points = meter.points("db.client.connection.count").into_iter();
    points.map(tell).collect()
}

fn expected<const N: usize>(states: [(&str, &str, u32); N]) -> BTreeMap<(String, String), f64> {
    states
        .map(|(pool, state, count)| ((pool.to_owned(), state.to_owned()), count.into()))
        .into()
}

/// How often a pool was waited for, and for how many seconds altogether.
fn waits(meter: &Meter, pool: &str) -> (u64, f64) {
    let mut points = meter.points(WAIT_TIME).into_iter();
    let point = points.find(|point| point.labels[NAME] == pool);
    point.map_or((0, 0.0), |point| {
        assert_eq!((point.unit.as_str(), point.labels.len()), ("s", 1));
        (point.count, point.sum)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_used_up_shows() {
    let meter = Meter::start().await;
    let store = PostgresStore::new(server(), 1);
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    let conversation = named(&new);
    eventually("the connection is given back", async || {
        connections(&meter) == expected([("postgresql", "idle", 1), ("postgresql", "used", 0)])
    })
    .await;
    assert_eq!(meter.by(MAX, NAME), values([("postgresql", 1)]));
    let (before, fast) = waits(&meter, "postgresql");
    assert!(before > 0 && fast < 5.0);
    assert_eq!(meter.by(TIMEOUTS, NAME), values([]));

    // A save that waits for the row holds the one connection.
    let mut other = server().connect().await.unwrap();
    let mut lock = other.begin().await.unwrap();
    query("SELECT 1 FROM conversations WHERE id = $1 FOR UPDATE")
        .bind(conversation.id.as_uuid())
        .execute(&mut *lock)
        .await
        .unwrap();
    let save = turn(&conversation, &["one"]);
    let held = store.append(&save);
    let refused = async {
        eventually("the connection is used", async || {
            connections(&meter) == expected([("postgresql", "idle", 0), ("postgresql", "used", 1)])
        })
        .await;
        let refused = store.get(&conversation).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))));
        // Who leaves before the time is up has waited as well.
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
    assert_eq!(connections(&meter), expected([]), "nobody holds the pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_and_the_readers_of_a_file_are_told_apart() {
    let meter = Meter::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("memory.db")).unwrap();
    store.prepare(true).await.unwrap();
    let new = new_conversation(&user());
    let conversation = named(&new);
    store.create(&new, at(0)).await.unwrap();
    assert_eq!(waits(&meter, "sqlite.writer").0, 1);
    assert_eq!(waits(&meter, "sqlite.readers").0, 0);
    store.get(&conversation).await.unwrap();
    store.get(&conversation).await.unwrap();
    assert_eq!(waits(&meter, "sqlite.writer").0, 1);
    assert_eq!(waits(&meter, "sqlite.readers").0, 2);
    // A connection is given back a moment later: the second read may open another.
    eventually("all are given back", async || {
        let mut shown = connections(&meter);
        let readers = shown.remove(&("sqlite.readers".to_owned(), "idle".to_owned()));
        readers.is_some_and(|idle| (1.0..=2.0).contains(&idle))
            && shown
                == expected([
                    ("sqlite.writer", "idle", 1),
                    ("sqlite.writer", "used", 0),
                    ("sqlite.readers", "used", 0),
                ])
    })
    .await;
    assert_eq!(
        meter.by(MAX, NAME),
        values([("sqlite.writer", 1), ("sqlite.readers", 4)])
    );
    store.close().await;
}
