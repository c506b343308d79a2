//! Why windows were dropped, and what came of filling them.

use conversation_memory::{
    recent::{Lookup, RecentWindow, redis::WINDOW_BYTES},
    redis::{Redis, RedisSettings, RedisTarget},
};

use crate::{
    meter::{Meter, values},
    redis::patient,
};
use test_support::{
    eventually,
    redis_server::RedisServer,
    window::{Bench, LIMIT, content, message, messages, owner, recent},
};

const DROPS: &str = "conversation_memory.recent_window.drops";
const FILLS: &str = "conversation_memory.recent_window.fills";
const UNPUBLISHED: &str = "conversation_memory.recent_window.unpublished";

/// A conversation that the window shows two messages of.
async fn shown() -> Bench {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    bench.hit(10).await;
    bench
}

/// Takes a conversation's announced writes out of its window.
async fn lose_announcements(bench: &Bench) {
    let fields = bench.call(&["HKEYS", &bench.key]).await;
    for field in fields.lines().filter(|field| field.starts_with("p:")) {
        bench.call(&["HDEL", &bench.key, field]).await;
    }
}

async fn save_sized(bench: &Bench, seq: i64, bytes: usize) {
    let mut message = message(bench.id, seq);
    message.content = content(&"x".repeat(bytes));
    let announced = bench.announce().await;
    bench.recent.publish(announced, &owner(), &[message]).await;
}

#[tokio::test]
async fn a_drop_is_counted_by_its_reason() {
    let meter = Meter::start().await;

    let bench = shown().await;
    bench.recent.retire(bench.announce().await).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("removed", 1)]));

    let bench = shown().await;
    bench.recent.forget(bench.announce().await).await;

    let bench = shown().await;
    let (second, third) = (bench.announce().await, bench.announce().await);
    bench.publish(third, 4..=4).await;
    bench.publish(second, 3..=3).await;

    let bench = shown().await;
    bench.recent.publish_replay(bench.announce().await, 3).await;

    let bench = shown().await;
    let stale = bench.recent.newest(bench.id, 10, 3).await;
    assert!(matches!(stale, Lookup::Miss(Some(_))));

    let bench = shown().await;
    let _crashed = bench.announce().await;
    bench.expire_all().await;
    assert!(bench.is_miss().await);

    assert_eq!(
        meter.by(DROPS, "reason"),
        values([
            ("removed", 1),
            ("unknown_conversation", 1),
            ("gap", 1),
            ("behind_replay", 1),
            ("stale", 1),
            ("abandoned", 1),
        ])
    );
    assert_eq!(meter.points(DROPS)[0].unit, "{window}");
}

#[tokio::test]
async fn a_write_without_its_announcement_drops_the_window() {
    let meter = Meter::start().await;
    let bench = shown().await;
    let announced = bench.announce().await;
    lose_announcements(&bench).await;
    bench.publish(announced, 3..=3).await;

    let bench = shown().await;
    let announced = bench.announce().await;
    lose_announcements(&bench).await;
    bench.recent.publish_replay(announced, 2).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unannounced", 2)]));

    // Redis did not hear of it at all.
    let nowhere = RedisTarget::from_url("redis://127.0.0.1:1").unwrap();
    let nowhere = Redis::connect(nowhere, RedisSettings::default());
    let unheard = recent(&nowhere);
    let bench = shown().await;
    let announced = unheard.announce(bench.id, LIMIT).await;
    bench.publish(announced, 3..=3).await;
    let bench = shown().await;
    let announced = unheard.announce(bench.id, LIMIT).await;
    bench.recent.publish_replay(announced, 2).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unannounced", 4)]));
    nowhere.shutdown().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_counted_once() {
    let meter = Meter::start().await;
    let breakages: [&[&str]; 4] = [
        // What the scripts cannot see, what they can, and what is no window.
        &["HSET", "m:2", "garbage"],
        &["HSET", "hi", "many"],
        &["HSET", "owner", "\u{0}"],
        &["SET", "text"],
    ];
    for (count, breakage) in (1..).zip(breakages) {
        let bench = shown().await;
        let (command, rest) = breakage.split_first().unwrap();
        bench.call(&["DEL", &bench.key]).await;
        let lease = bench.lease_again().await;
        bench.fill(lease, 2, 1..=2, true).await;
        bench
            .call(&[&[*command, &bench.key][..], rest].concat())
            .await;
        assert!(bench.is_miss().await, "{breakage:?}");
        assert!(bench.is_miss().await, "{breakage:?}");
        let expected = values([("unreadable", count)]);
        assert_eq!(meter.by(DROPS, "reason"), expected, "{breakage:?}");
    }
    // A writer may be the first to meet it.
    let bench = shown().await;
    let announced = bench.announce().await;
    bench.call(&["HSET", &bench.key, "hi", "many"]).await;
    bench.publish(announced, 3..=3).await;
    let bench = shown().await;
    bench.call(&["SET", &bench.key, "text"]).await;
    bench.save(3..=3).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unreadable", 6)]));
}

#[tokio::test]
async fn a_window_that_becomes_too_large_is_counted() {
    let meter = Meter::start().await;
    let bench = shown().await;
    save_sized(&bench, 3, WINDOW_BYTES / 2).await;
    bench.hit(10).await;
    save_sized(&bench, 4, WINDOW_BYTES / 2).await;
    assert!(bench.is_miss().await, "together they are too large");
    let bench = shown().await;
    save_sized(&bench, 3, WINDOW_BYTES).await;
    assert!(bench.is_miss().await, "alone it is too large");
    assert_eq!(meter.by(DROPS, "reason"), values([("too_large", 2)]));
}

#[tokio::test]
async fn what_was_not_there_is_not_dropped() {
    let meter = Meter::start().await;
    let bench = Bench::new().await;
    bench.recent.retire(bench.announce().await).await;
    bench.recent.forget(bench.announce().await).await;
    bench.recent.publish_replay(bench.announce().await, 7).await;
    let late = bench.announce().await;
    bench.evict().await;
    bench.publish(late, 8..=8).await;
    let stale = bench.recent.newest(bench.id, 10, 9).await;
    assert!(matches!(stale, Lookup::Miss(_)));
    let _crashed = bench.announce().await;
    bench.expire_all().await;
    assert!(bench.is_miss().await);
    assert_eq!(meter.by(DROPS, "reason"), values([]));
}

#[tokio::test]
async fn conversations_that_redis_was_not_told_of_are_shown_until_they_are_dropped() {
    let server = RedisServer::start(&[]).await;
    let meter = Meter::start().await;
    let redis = patient(&server.url());
    redis.available().await;
    let bench = Bench::with(recent(&redis), &server.url(), "");
    bench.save(1..=1).await;
    assert_eq!(meter.value(UNPUBLISHED), Some(0.0));
    server.freeze();
    bench.save(2..=2).await;
    assert_eq!(meter.value(UNPUBLISHED), Some(1.0));
    server.thaw();
    eventually("it is dropped", async || {
        meter.value(UNPUBLISHED) == Some(0.0)
    })
    .await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unpublished", 1)]));
    redis.shutdown().await;
    drop((bench, redis));
    assert_eq!(meter.value(UNPUBLISHED), None, "nobody holds the list");
}

#[tokio::test]
async fn a_full_redis_is_a_reason_of_its_own() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let fill_up = async |bytes: &str| {
        server.call(&["CONFIG", "SET", "maxmemory", bytes]).await;
    };
    let meter = Meter::start().await;
    let bench = Bench::on(&server.url(), "").await;
    let lease = bench.lease().await;
    fill_up("1").await;
    bench.fill(lease, 2, 1..=2, true).await;
    assert_eq!(meter.by(FILLS, "outcome"), values([("out_of_memory", 1)]));
    assert_eq!(meter.by(DROPS, "reason"), values([]), "it was cold");

    fill_up("0").await;
    let lease = bench.lease_again().await;
    bench.fill(lease, 2, 1..=2, true).await;
    bench.hit(10).await;
    fill_up("1").await;
    bench.save(3..=3).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("out_of_memory", 1)]));
}

#[tokio::test]
async fn a_fill_is_counted_by_its_outcome() {
    let mut server = RedisServer::start(&[]).await;
    let meter = Meter::start().await;
    let bench = Bench::on(&server.url(), "").await;
    let lease = bench.lease().await;
    bench.fill(lease, 2, 1..=2, true).await;
    assert_eq!(meter.by(FILLS, "outcome"), values([("filled", 1)]));

    bench.evict().await;
    let lease = bench.lease().await;
    bench.end_lease().await;
    bench.fill(lease, 2, 1..=2, true).await;
    let lease = bench.lease_again().await;
    let announced = bench.announce().await;
    bench.fill(lease, 2, 1..=2, true).await;
    bench.recent.abort(announced).await;

    let lease = bench.lease_again().await;
    let mut large = messages(bench.id, 1..=2);
    large[0].content = content(&"x".repeat(WINDOW_BYTES));
    bench.recent.fill(lease, &owner(), 2, &large, true).await;

    let lease = bench.lease_again().await;
    server.kill();
    bench.fill(lease, 2, 1..=2, true).await;
    assert_eq!(
        meter.by(FILLS, "outcome"),
        values([
            ("filled", 1),
            ("refused", 2),
            ("too_large", 1),
            ("error", 1)
        ])
    );
    assert_eq!(meter.points(FILLS)[0].unit, "{fill}");
}
