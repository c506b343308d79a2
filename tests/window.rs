//! What the recent window in Redis must do, step by step; `tests/window_model.rs`
//! goes through the steps' interleavings, `tests/window_faults.rs` through what
//! can happen to Redis.

use std::time::Duration;

use conversation_memory::{
    domain::UserId,
    recent::{Lookup, RecentWindow, none::NoWindow, redis::WINDOW_BYTES},
};
use test_support::redis_server::{RedisServer, attached, call, own_prefix, shared_url};
use test_support::window::{
    Bench, LIMIT, NONE, TTL, conversation_id, message, messages, owner, recent, seqs,
};

#[tokio::test]
async fn no_window_shows_nothing() {
    let id = conversation_id();
    let announced = NoWindow.announce(id, LIMIT).await;
    NoWindow
        .publish(announced, &owner(), &messages(id, 1..=2))
        .await;
    // The empty window is the one that never shows less than was published.
    assert!(matches!(
        NoWindow.newest(id, 10, 0).await,
        Lookup::Miss(None)
    ));
    assert_eq!(NoWindow.capacity(), 0);
}

#[tokio::test]
async fn a_conversation_is_shown_from_its_first_message_on() {
    let bench = Bench::new().await;
    assert!(bench.is_miss().await);
    bench.save(1..=2).await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));
    bench.save(3..=3).await;
    assert_eq!(bench.hit(10).await, (3, vec![1, 2, 3]));
    assert_eq!(bench.hit(2).await, (3, vec![2, 3]));
    assert_eq!(bench.hit(0).await, (3, vec![]));
}

#[tokio::test]
async fn messages_come_back_as_they_were() {
    let bench = Bench::new().await;
    let id = bench.id;
    let mut odd = message(id, 1);
    odd.content = test_support::window::content(
        "\u{1}\u{7f}\u{2028}\\u0000 \"quoted\" 🙂\u{10ffff}\u{202e}\r\n",
    );
    odd.contexts.clear();
    let announced = bench.recent.announce(id, LIMIT).await;
    let user = UserId::parse("a:b{c} * 用户").unwrap();
    let saved = [odd];
    bench.recent.publish(announced, &user, &saved).await;
    let Lookup::Hit(window) = bench.newest(10).await else {
        panic!("no hit");
    };
    assert_eq!(window.messages, saved);
    assert_eq!(window.owner, user);
}

#[tokio::test]
async fn a_window_keeps_the_newest_messages() {
    let bench = Bench::new().await;
    assert_eq!(bench.recent.capacity(), 12);
    bench.save(1..=8).await;
    bench.save(9..=14).await;
    assert_eq!(bench.hit(12).await, (14, (3..=14).collect()));
    assert!(matches!(bench.newest(13).await, Lookup::Short));
    assert_eq!(bench.fields("m:").await, 12);
    bench.save(15..=114).await;
    assert_eq!(bench.hit(12).await, (114, (103..=114).collect()));
    assert_eq!(bench.fields("m:").await, 12);

    let long = Bench::new().await;
    long.save(1..=100).await;
    assert_eq!(long.hit(12).await, (100, (89..=100).collect()));
    assert!(matches!(long.newest(13).await, Lookup::Short));
}

#[tokio::test]
async fn nothing_is_read_or_filled_while_a_write_is_announced() {
    let bench = Bench::new().await;
    bench.save(1..=1).await;
    let announced = bench.announce().await;
    assert!(matches!(bench.newest(10).await, Lookup::Busy));
    bench.publish(announced, 2..=2).await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));

    bench.evict().await;
    let lease = bench.lease().await;
    let announced = bench.announce().await;
    bench.fill(lease, 2, 1..=2, true).await;
    bench.recent.abort(announced).await;
    assert!(bench.is_miss().await, "the announcement ended the lease");
}

#[tokio::test]
async fn one_reader_fills_a_cold_window() {
    let bench = Bench::new().await;
    let lease = bench.lease().await;
    assert!(matches!(bench.newest(10).await, Lookup::Miss(None)));
    bench.fill(lease, 20, 9..=20, false).await;
    assert_eq!(bench.hit(12).await, (20, (9..=20).collect()));
    assert!(matches!(bench.newest(13).await, Lookup::Short));

    bench.evict().await;
    let late = bench.lease().await;
    bench.end_lease().await;
    let lease = bench.lease().await;
    bench.fill(late, 19, 8..=19, false).await;
    assert!(
        bench.is_miss().await,
        "a lease that has ended fills nothing"
    );
    bench.fill(lease, 20, 9..=20, false).await;
    assert_eq!(bench.hit(1).await, (20, vec![20]));
}

#[tokio::test]
async fn windows_without_messages_and_with_holes_are_windows() {
    let bench = Bench::new().await;
    let lease = bench.lease().await;
    bench.fill(lease, 0, NONE, true).await;
    assert_eq!(bench.hit(10).await, (0, vec![]));
    bench.save(1..=1).await;
    assert_eq!(bench.hit(10).await, (1, vec![1]));

    // A truncation took 3 to 5 away.
    bench.evict().await;
    let lease = bench.lease().await;
    bench.fill(lease, 5, 1..=2, true).await;
    assert_eq!(bench.hit(10).await, (5, vec![1, 2]));
    bench.save(6..=6).await;
    assert_eq!(bench.hit(10).await, (6, vec![1, 2, 6]));
}

#[tokio::test]
async fn a_fill_keeps_no_more_than_fits() {
    let bench = Bench::new().await;
    let lease = bench.lease().await;
    bench.fill(lease, 30, 1..=30, true).await;
    assert_eq!(bench.hit(12).await, (30, (19..=30).collect()));
    assert!(matches!(bench.newest(13).await, Lookup::Short));
}

#[tokio::test]
async fn commits_may_be_published_in_any_order() {
    let bench = Bench::new().await;
    let (first, second) = (bench.announce().await, bench.announce().await);
    bench.publish(second, 2..=2).await;
    assert!(matches!(bench.newest(10).await, Lookup::Busy));
    bench.publish(first, 1..=1).await;
    assert!(
        bench.is_miss().await,
        "a window that would lack 2 does not start"
    );

    let bench = Bench::new().await;
    bench.save(1..=1).await;
    let (first, second) = (bench.announce().await, bench.announce().await);
    bench.publish(second, 3..=3).await;
    bench.publish(first, 2..=2).await;
    assert!(bench.is_miss().await, "a gap drops the window");
}

#[tokio::test]
async fn what_is_shown_already_changes_nothing() {
    let bench = Bench::new().await;
    bench.save(1..=3).await;
    let announced = bench.announce().await;
    bench.publish(announced, 2..=3).await;
    assert_eq!(bench.hit(10).await, (3, vec![1, 2, 3]));
}

#[tokio::test]
async fn a_replay_drops_a_window_that_does_not_show_it() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let announced = bench.announce().await;
    bench.recent.publish_replay(announced, 2).await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));
    let announced = bench.announce().await;
    bench.recent.publish_replay(announced, 3).await;
    assert!(bench.is_miss().await);

    let bench = Bench::new().await;
    let (slow, replay) = (bench.announce().await, bench.announce().await);
    bench.recent.publish_replay(replay, 2).await;
    bench.publish(slow, 1..=1).await;
    assert!(
        bench.is_miss().await,
        "the replay has shown that there is more"
    );
}

#[tokio::test]
async fn a_removal_drops_the_window() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let announced = bench.announce().await;
    bench.recent.retire(announced).await;
    let lease = bench.lease().await;
    bench.fill(lease, 2, 1..=1, true).await;
    assert_eq!(bench.hit(10).await, (2, vec![1]));

    let bench = Bench::new().await;
    let (slow, removal) = (bench.announce().await, bench.announce().await);
    bench.recent.retire(removal).await;
    bench.publish(slow, 1..=2).await;
    assert!(
        bench.is_miss().await,
        "what was published may have been removed"
    );
}

#[tokio::test]
async fn an_announcement_taken_back_changes_nothing() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let announced = bench.announce().await;
    bench.recent.abort(announced).await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));
}

#[tokio::test]
async fn an_announcement_that_nobody_ended_drops_the_window() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let slow = bench.announce().await;
    bench.expire_all().await;
    let lease = bench.lease().await;
    assert_eq!(bench.fields("p:").await, 0);
    bench.fill(lease, 2, 1..=2, true).await;
    bench.publish(slow, 3..=3).await;
    assert!(bench.is_miss().await, "its announcement is gone");
}

#[tokio::test]
async fn a_window_that_ends_too_early_is_dropped() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    assert!(matches!(
        bench.recent.newest(bench.id, 10, 2).await,
        Lookup::Hit(_)
    ));
    let Lookup::Miss(Some(lease)) = bench.recent.newest(bench.id, 10, 3).await else {
        panic!("stale");
    };
    assert!(bench.is_miss().await);
    bench.fill(lease, 3, 1..=3, true).await;
    assert_eq!(bench.hit(10).await, (3, vec![1, 2, 3]));
}

#[tokio::test]
async fn a_miss_alone_leaves_nothing_for_long() {
    let bench = Bench::new().await;
    let lease = bench.lease().await;
    assert!((1..=10_000).contains(&bench.pttl().await));
    bench.fill(lease, 1, 1..=1, true).await;
    assert!(bench.pttl().await > 10_000);
}

#[tokio::test]
async fn a_save_larger_than_an_empty_window_is_not_all_of_it() {
    let bench = Bench::new().await;
    let lease = bench.lease().await;
    bench.fill(lease, 0, NONE, true).await;
    let many = i64::from(bench.recent.capacity()) + 5;
    bench.save(1..=many).await;
    let newest = bench.newest(u32::try_from(many).unwrap()).await;
    assert!(matches!(newest, Lookup::Short), "{newest:?}");
}

#[tokio::test]
async fn a_window_of_no_conversation_is_forgotten() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let announced = bench.announce().await;
    bench.recent.forget(announced).await;
    assert!(bench.is_miss().await);
    // Nothing at all is left of one that never was.
    let unknown = Bench::new().await;
    let announced = unknown.announce().await;
    unknown.recent.forget(announced).await;
    assert_eq!(unknown.pttl().await, -2);
}

#[tokio::test]
async fn every_use_renews_a_window() {
    let bench = Bench::new().await;
    bench.save(1..=2).await;
    let ttl = i64::try_from(TTL.as_millis()).unwrap();
    let shorten = async || {
        call(&shared_url(), &["PEXPIRE", &bench.key, "500"])
            .await
            .unwrap()
    };
    assert!((1..=ttl).contains(&bench.pttl().await));
    shorten().await;
    bench.hit(10).await;
    assert!((ttl - 5_000..=ttl).contains(&bench.pttl().await));
    shorten().await;
    let announced = bench.announce().await;
    assert!((ttl - 5_000..=ttl).contains(&bench.pttl().await));
    shorten().await;
    bench.publish(announced, 3..=3).await;
    assert!((ttl - 5_000..=ttl).contains(&bench.pttl().await));
    bench.evict().await;
    let lease = bench.lease().await;
    bench.fill(lease, 3, 1..=3, true).await;
    assert!((ttl - 5_000..=ttl).contains(&bench.pttl().await));

    // An announcement is never forgotten before its deadline.
    let announced = bench.recent.announce(bench.id, TTL * 2).await;
    assert!(bench.pttl().await > ttl);
    bench.save(4..=4).await;
    assert!(bench.pttl().await > ttl);
    bench.recent.abort(announced).await;
}

#[tokio::test]
async fn what_does_not_decode_is_dropped() {
    let bench = Bench::new().await;
    let breakages: [&[&str]; 9] = [
        &["m:2", "garbage"],
        &["m:2", r#"{"v":0,"seq":2}"#],
        &["m:two", "{}"],
        &["m:4", "{}"],
        &["hi", "many"],
        &["hi", "1"],
        &["owner", ""],
        &["m:01.5", "{}"],
        &["owner", "\u{0}"],
    ];
    for breakage in breakages {
        bench.evict().await;
        let lease = bench.lease().await;
        bench.fill(lease, 3, 1..=3, true).await;
        bench.hit(10).await;
        let command = [&["HSET", &bench.key], breakage].concat();
        call(&shared_url(), &command).await.unwrap();
        assert!(bench.is_miss().await, "{breakage:?}");
        assert_eq!(bench.fields("m:").await, 0, "{breakage:?}");
        assert_eq!(bench.fields("hi").await, 0, "{breakage:?}");
        assert!(bench.is_miss().await, "{breakage:?}");
    }
    // A field that nobody knows is no harm.
    bench.evict().await;
    bench.save(4..=4).await;
    let lease = bench.lease().await;
    bench.fill(lease, 4, 1..=4, true).await;
    call(&shared_url(), &["HSET", &bench.key, "new", "field"])
        .await
        .unwrap();
    assert_eq!(bench.hit(10).await.0, 4);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_cold_window() {
    let bench = Bench::new().await;
    let wrong = async || {
        call(&shared_url(), &["SET", &bench.key, "text"])
            .await
            .unwrap()
    };
    wrong().await;
    assert!(bench.is_miss().await);
    wrong().await;
    let announced = bench.announce().await;
    assert!(matches!(bench.newest(10).await, Lookup::Busy));
    wrong().await;
    bench.publish(announced, 1..=1).await;
    assert!(bench.is_miss().await);
    wrong().await;
    let announced = bench.announce().await;
    wrong().await;
    bench.recent.abort(announced).await;
    assert!(bench.is_miss().await);
    let lease = bench.lease_again().await;
    wrong().await;
    bench.fill(lease, 1, 1..=1, true).await;
    assert!(bench.is_miss().await);
    wrong().await;
    let announced = bench.announce().await;
    wrong().await;
    bench.recent.retire(announced).await;
    assert!(bench.is_miss().await);
}

#[tokio::test]
async fn a_window_has_a_largest_size() {
    let bench = Bench::new().await;
    let sized = |seq, bytes| {
        let mut message = message(bench.id, seq);
        message.content = test_support::window::content(&"x".repeat(bytes));
        vec![message]
    };
    let save = async |messages: Vec<_>| {
        let announced = bench.announce().await;
        bench.recent.publish(announced, &owner(), &messages).await;
    };
    save(sized(1, WINDOW_BYTES / 2)).await;
    assert_eq!(bench.hit(10).await.0, 1);
    save(sized(2, WINDOW_BYTES / 2)).await;
    assert!(bench.is_miss().await, "together they are too large");
    save(sized(3, WINDOW_BYTES)).await;
    let lease = bench.lease_again().await;
    let large = sized(3, WINDOW_BYTES);
    bench.recent.fill(lease, &owner(), 3, &large, false).await;
    assert!(bench.is_miss().await, "alone it is too large");
    assert_eq!(bench.fields("m:").await, 0);
}

#[tokio::test]
async fn a_sidecar_shows_what_another_saved() {
    let bench = Bench::new().await;
    let other = recent(&attached(&shared_url(), &bench.prefix).await);
    bench.save(1..=1).await;
    let announced = other.announce(bench.id, LIMIT).await;
    other
        .publish(announced, &owner(), &messages(bench.id, 2..=2))
        .await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));
    let Lookup::Hit(window) = other.newest(bench.id, 10, 2).await else {
        panic!("no hit");
    };
    assert_eq!(seqs(&window.messages), [1, 2]);
    assert_eq!(window.owner, owner());
}

#[tokio::test]
async fn every_access_is_one_script() {
    let server = RedisServer::start(&[]).await;
    let bench = Bench::on(&server.url(), &own_prefix()).await;
    let before = async || {
        server.call(&["CONFIG", "RESETSTAT"]).await;
    };
    let commands = async || {
        let stats = server.call(&["INFO", "commandstats"]).await;
        let calls = |name: &str| {
            let prefix = format!("cmdstat_{name}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        (calls("evalsha"), calls("eval"))
    };
    before().await;
    bench.save(1..=2).await;
    assert_eq!(commands().await, (2, 2), "Redis did not know the scripts");
    bench.hit(10).await;
    before().await;
    for seq in 3..=20 {
        bench.save(seq..=seq).await;
        bench.hit(10).await;
    }
    assert_eq!(commands().await, (3 * 18, 0));

    // After SCRIPT FLUSH each script is sent once more, in mid-protocol too.
    let announced = bench.announce().await;
    server.call(&["SCRIPT", "FLUSH"]).await;
    bench.publish(announced, 21..=21).await;
    assert_eq!(bench.hit(10).await.0, 21);
}

#[tokio::test]
async fn losing_everything_in_mid_protocol_loses_nothing() {
    let server = RedisServer::start(&[]).await;
    let bench = Bench::on(&server.url(), &own_prefix()).await;
    bench.save(1..=1).await;
    let announced = bench.announce().await;
    server.call(&["FLUSHALL"]).await;
    bench.publish(announced, 2..=2).await;
    assert!(bench.is_miss().await);
    let lease = bench.lease_again().await;
    server.call(&["FLUSHALL"]).await;
    bench.fill(lease, 1, 1..=1, true).await;
    assert!(bench.is_miss().await, "the lease is gone too");
}

#[tokio::test]
async fn a_lease_that_nobody_uses_ends() {
    let bench = Bench::new().await;
    let _unused = bench.lease().await;
    test_support::eventually("another lease is given", async || {
        matches!(bench.newest(10).await, Lookup::Miss(Some(_)))
    })
    .await;
    assert!(bench.pttl().await > i64::try_from(Duration::from_secs(1).as_millis()).unwrap());
}
