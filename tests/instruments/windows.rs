//! Metrics of the recent windows: drops by reason, fills by outcome, and pending
//! invalidations.

use conversation_memory::{
    recent::{Claim, Lookup, RecentWindow, in_process::InProcessRecent, redis::WINDOW_BYTES},
    redis::{Redis, RedisSettings, RedisTarget},
};

use crate::{
    meter::{Meter, values},
    redis::connect_with_long_timeout,
};
use test_support::{
    eventually,
    redis_server::RedisServer,
    window::{
        LIMIT, WindowFixture, content, conversation_id, message, messages, owner, recent, window,
    },
};

const DROPS: &str = "conversation_memory.recent_window.drops";
const FILLS: &str = "conversation_memory.recent_window.fills";
const UNPUBLISHED: &str = "conversation_memory.recent_window.unpublished";

/// Creates a window with two messages.
async fn warm_window() -> WindowFixture {
    let fixture = WindowFixture::new().await;
    fixture.save(1..=2).await;
    fixture.hit(10).await;
    fixture
}

/// Deletes the announcement writes from a window.
async fn delete_announcements(fixture: &WindowFixture) {
    for field in fixture.field_names("p:").await {
        fixture.call(&["HDEL", &fixture.key, &field]).await;
    }
}

async fn save_sized(fixture: &WindowFixture, seq: i64, bytes: usize) {
    let mut message = message(fixture.id, seq);
    message.content = content(&"x".repeat(bytes));
    let announcement = fixture.announce().await;
    fixture
        .recent
        .publish(announcement, &owner(), &[message], 9)
        .await;
}

#[tokio::test]
async fn drops_are_counted_by_reason() {
    let meter = Meter::start().await;

    let fixture = warm_window().await;
    fixture.recent.retire(fixture.announce().await).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("removed", 1)]));

    let fixture = warm_window().await;
    fixture.recent.forget(fixture.announce().await).await;

    let fixture = warm_window().await;
    let (second, third) = (fixture.announce().await, fixture.announce().await);
    fixture.publish(third, 4..=4).await;
    fixture.publish(second, 3..=3).await;

    let fixture = warm_window().await;
    fixture
        .recent
        .publish_replay(fixture.announce().await, 3)
        .await;

    let fixture = warm_window().await;
    let stale = fixture
        .recent
        .newest(fixture.id, Claim::Unclaimed, 10, 3)
        .await;
    assert!(matches!(stale, Lookup::Miss(Some(_))));

    let fixture = warm_window().await;
    let _crashed = fixture.announce().await;
    fixture.expire_announcements().await;
    assert!(fixture.is_miss().await);

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
async fn a_missing_announcement_is_counted_as_unannounced() {
    let meter = Meter::start().await;
    let fixture = warm_window().await;
    let announcement = fixture.announce().await;
    delete_announcements(&fixture).await;
    fixture.publish(announcement, 3..=3).await;

    let fixture = warm_window().await;
    let announcement = fixture.announce().await;
    delete_announcements(&fixture).await;
    fixture.recent.publish_replay(announcement, 2).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unannounced", 2)]));

    // The announcement did not reach Redis.
    let nowhere = RedisTarget::from_url("redis://127.0.0.1:1").unwrap();
    let nowhere = Redis::connect(nowhere, RedisSettings::default());
    let disconnected = recent(&nowhere);
    let fixture = warm_window().await;
    let announcement = disconnected
        .announce(fixture.id, Claim::Unclaimed, LIMIT)
        .await
        .unwrap();
    fixture.publish(announcement, 3..=3).await;
    let fixture = warm_window().await;
    let announcement = disconnected
        .announce(fixture.id, Claim::Unclaimed, LIMIT)
        .await
        .unwrap();
    fixture.recent.publish_replay(announcement, 2).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unannounced", 4)]));
    nowhere.shutdown().await;
}

#[tokio::test]
async fn invalid_content_is_counted_once() {
    let meter = Meter::start().await;
    let commands: [&[&str]; 4] = [
        // Invalid content that only the sidecar detects, that the scripts detect, and a
        // key of another type.
        &["HSET", "s:1", "garbage"],
        &["HSET", "hi", "many"],
        &["HSET", "owner", "\u{0}"],
        &["SET", "text"],
    ];
    for (count, invalid) in (1..).zip(commands) {
        let fixture = warm_window().await;
        let (command, rest) = invalid.split_first().unwrap();
        fixture.call(&["DEL", &fixture.key]).await;
        let lease = fixture.new_lease().await;
        fixture.fill(lease, 2, 1..=2, true).await;
        fixture
            .call(&[&[*command, &fixture.key][..], rest].concat())
            .await;
        assert!(fixture.is_miss().await, "{invalid:?}");
        assert!(fixture.is_miss().await, "{invalid:?}");
        let expected = values([("unreadable", count)]);
        assert_eq!(meter.by(DROPS, "reason"), expected, "{invalid:?}");
    }
    // A writer can detect it first.
    let fixture = warm_window().await;
    let announcement = fixture.announce().await;
    fixture.call(&["HSET", &fixture.key, "hi", "many"]).await;
    fixture.publish(announcement, 3..=3).await;
    let fixture = warm_window().await;
    fixture.call(&["SET", &fixture.key, "text"]).await;
    fixture.save(3..=3).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unreadable", 6)]));
}

#[tokio::test]
async fn windows_above_the_size_limit_are_counted() {
    let meter = Meter::start().await;
    let fixture = warm_window().await;
    save_sized(&fixture, 3, WINDOW_BYTES / 2).await;
    fixture.hit(10).await;
    save_sized(&fixture, 4, WINDOW_BYTES / 2).await;
    assert!(fixture.is_miss().await, "both messages exceed the limit");
    let fixture = warm_window().await;
    save_sized(&fixture, 3, WINDOW_BYTES).await;
    assert!(fixture.is_miss().await, "the message exceeds the limit");
    assert_eq!(meter.by(DROPS, "reason"), values([("too_large", 2)]));
}

#[tokio::test]
async fn dropping_a_cold_window_is_not_counted() {
    let meter = Meter::start().await;
    let fixture = WindowFixture::new().await;
    fixture.recent.retire(fixture.announce().await).await;
    fixture.recent.forget(fixture.announce().await).await;
    fixture
        .recent
        .publish_replay(fixture.announce().await, 7)
        .await;
    let late = fixture.announce().await;
    fixture.evict().await;
    fixture.publish(late, 8..=8).await;
    let stale = fixture
        .recent
        .newest(fixture.id, Claim::Unclaimed, 10, 9)
        .await;
    assert!(matches!(stale, Lookup::Miss(_)));
    let _crashed = fixture.announce().await;
    fixture.expire_announcements().await;
    assert!(fixture.is_miss().await);
    assert_eq!(meter.by(DROPS, "reason"), values([]));
}

#[tokio::test]
async fn pending_invalidations_are_reported_until_the_windows_are_dropped() {
    let server = RedisServer::start(&[]).await;
    let meter = Meter::start().await;
    let redis = connect_with_long_timeout(&server.url());
    redis.wait_until_available().await;
    let fixture = WindowFixture::with(recent(&redis), &server.url(), "");
    fixture.save(1..=1).await;
    assert_eq!(meter.value(UNPUBLISHED), Some(0.0));
    server.freeze();
    fixture.save(2..=2).await;
    assert_eq!(meter.value(UNPUBLISHED), Some(1.0));
    server.thaw();
    eventually("the window is dropped", async || {
        meter.value(UNPUBLISHED) == Some(0.0)
    })
    .await;
    assert_eq!(meter.by(DROPS, "reason"), values([("unpublished", 1)]));
    redis.shutdown().await;
    drop((fixture, redis));
    assert_eq!(
        meter.value(UNPUBLISHED),
        None,
        "the windows were dropped with their gauge"
    );
}

#[tokio::test]
async fn out_of_memory_is_counted() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let set_max_memory = async |bytes: &str| {
        server.call(&["CONFIG", "SET", "maxmemory", bytes]).await;
    };
    let meter = Meter::start().await;
    let fixture = WindowFixture::on(&server.url(), "").await;
    let lease = fixture.lease().await;
    set_max_memory("1").await;
    fixture.fill(lease, 2, 1..=2, true).await;
    assert_eq!(meter.by(FILLS, "outcome"), values([("out_of_memory", 1)]));
    assert_eq!(meter.by(DROPS, "reason"), values([]), "the window was cold");

    set_max_memory("0").await;
    let lease = fixture.new_lease().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    fixture.hit(10).await;
    set_max_memory("1").await;
    fixture.save(3..=3).await;
    assert_eq!(meter.by(DROPS, "reason"), values([("out_of_memory", 1)]));
}

#[tokio::test]
async fn fills_are_counted_by_outcome() {
    let mut server = RedisServer::start(&[]).await;
    let meter = Meter::start().await;
    let fixture = WindowFixture::on(&server.url(), "").await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    assert_eq!(meter.by(FILLS, "outcome"), values([("filled", 1)]));

    fixture.evict().await;
    let lease = fixture.lease().await;
    fixture.end_lease().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    let lease = fixture.new_lease().await;
    let announcement = fixture.announce().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    fixture.recent.abort(announcement).await;

    let lease = fixture.new_lease().await;
    let mut large = messages(fixture.id, 1..=2);
    large[0].content = content(&"x".repeat(WINDOW_BYTES));
    fixture.recent.fill(lease, &window(2, large, true)).await;

    let lease = fixture.new_lease().await;
    server.kill();
    fixture.fill(lease, 2, 1..=2, true).await;
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

#[tokio::test]
async fn windows_in_the_process_report_their_size_and_those_that_left() {
    const SIZE: &str = "conversation_memory.recent_window.size";
    let meter = Meter::start().await;
    let recent = InProcessRecent::new(10, 8 << 10);
    assert_eq!(meter.value(SIZE), Some(0.0));
    for _ in 0..20 {
        let id = conversation_id();
        let announcement = recent.announce(id, Claim::Unclaimed, LIMIT).await.unwrap();
        let saved = messages(id, 1..=1);
        recent.publish(announcement, &owner(), &saved, 3).await;
    }
    let stored = recent.stored_conversations();
    assert!((2..19).contains(&stored), "{stored}");
    let evicted = u32::try_from(20 - stored).unwrap();
    assert_eq!(meter.by(DROPS, "reason"), values([("evicted", evicted)]));
    let size = meter.value(SIZE).unwrap();
    assert!(size > 1_000.0 && size <= 8_192.0, "{size}");
    drop(recent);
    assert_eq!(meter.value(SIZE), None);
}
