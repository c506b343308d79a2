//! The contract of the recent window, operation by operation.
//! `tests/window_model` tests interleavings of the operations, and
//! `tests/window_faults.rs` failures of Redis.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use conversation_memory::{
    domain::{ConversationId, UserId},
    recent::{
        Claim, EncodedMessage, Lookup, RecentWindow,
        in_process::InProcessRecent,
        none::NoWindow,
        redis::{RedisRecent, WINDOW_BYTES},
    },
};
use test_support::redis_server::{RedisServer, call, connect_and_wait, shared_url, unique_prefix};
use test_support::window::{
    LIMIT, NONE, TTL, TestedWindow, WindowFixture, content, conversation_id, encoded_seqs, message,
    messages, owner, recent, recent_of, window,
};

/// Defines tests of the contract for the window in Redis and for the one in the process.
macro_rules! contract {
    ($($case:ident)+) => {
        mod in_redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case::<conversation_memory::recent::redis::RedisRecent>().await;
            })+
        }

        mod in_process {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                super::$case::<conversation_memory::recent::in_process::InProcessRecent>().await;
            })+
        }
    };
}

contract! {
    the_first_messages_start_a_window
    messages_are_returned_unchanged
    a_window_is_trimmed_to_its_capacity
    a_window_is_neither_read_nor_filled_while_a_write_is_announced
    one_reader_gets_the_lease_of_a_cold_window
    empty_windows_and_windows_with_gaps_are_hits
    a_fill_is_trimmed_to_the_capacity
    commits_published_out_of_order_drop_the_window
    publishing_known_messages_changes_nothing
    a_replay_drops_a_window_that_ends_before_it
    retire_drops_the_window
    abort_leaves_the_window_unchanged
    an_expired_announcement_drops_the_window
    a_window_that_ends_before_min_seq_is_dropped
    a_save_beyond_the_capacity_makes_a_window_partial
    forget_drops_the_window
    a_window_above_the_size_limit_is_dropped
    other_messages_under_the_same_numbers_drop_the_window
    invalidated_window_is_a_miss
    the_store_confirms_an_owner_whom_the_window_does_not_know
    a_window_that_outlived_its_conversation_is_dropped_for_the_new_owner
}

#[tokio::test]
async fn no_window_is_always_a_miss() {
    let id = conversation_id();
    let announcement = NoWindow
        .announce(id, Claim::Unclaimed, LIMIT)
        .await
        .unwrap();
    NoWindow
        .publish(announcement, &owner(), &messages(id, 1..=2), 6)
        .await;
    assert!(matches!(
        NoWindow.newest(id, Claim::Unclaimed, 10, 0).await,
        Lookup::Miss(None)
    ));
    assert_eq!(NoWindow.capacity(), 0);
}

async fn the_first_messages_start_a_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    assert!(fixture.is_miss().await);
    fixture.save(1..=2).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));
    fixture.save(3..=3).await;
    assert_eq!(fixture.hit(10).await, (3, vec![1, 2, 3]));
    assert_eq!(fixture.hit(2).await, (3, vec![2, 3]));
    assert_eq!(fixture.hit(0).await, (3, vec![]));
}

async fn messages_are_returned_unchanged<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let id = fixture.id;
    let mut unusual = message(id, 1);
    unusual.content = content("\u{1}\u{7f}\u{2028}\\u0000 \"quoted\" 🙂\u{10ffff}\u{202e}\r\n");
    unusual.contexts.clear();
    let announcement = fixture
        .recent
        .announce(id, Claim::Unclaimed, LIMIT)
        .await
        .unwrap();
    let user = UserId::parse("a:b{c} * 用户").unwrap();
    let saved = [unusual];
    fixture.recent.publish(announcement, &user, &saved, 6).await;
    let Lookup::Hit(window) = fixture.newest(10).await else {
        panic!("expected a hit");
    };
    let saved: Vec<_> = saved.iter().map(EncodedMessage::encode).collect();
    assert_eq!(window.messages, saved);
    assert_eq!(window.owner, user);
}

async fn a_window_is_trimmed_to_its_capacity<R: TestedWindow>() {
    let fixture = R::fixture().await;
    assert_eq!(fixture.recent.capacity(), 12);
    fixture.save(1..=8).await;
    fixture.save(9..=14).await;
    assert_eq!(fixture.hit(12).await, (14, (3..=14).collect()));
    assert!(matches!(fixture.newest(13).await, Lookup::Short));
    assert!(fixture.has_fields("s:", 12).await);
    fixture.save(15..=114).await;
    assert_eq!(fixture.hit(12).await, (114, (103..=114).collect()));
    assert!(fixture.has_fields("s:", 12).await);

    let long = R::fixture().await;
    long.save(1..=100).await;
    assert_eq!(long.hit(12).await, (100, (89..=100).collect()));
    assert!(matches!(long.newest(13).await, Lookup::Short));
}

async fn a_window_is_neither_read_nor_filled_while_a_write_is_announced<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=1).await;
    let announcement = fixture.announce().await;
    assert!(matches!(fixture.newest(10).await, Lookup::Busy));
    fixture.publish(announcement, 2..=2).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));

    fixture.evict().await;
    let lease = fixture.lease().await;
    let announcement = fixture.announce().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    fixture.recent.abort(announcement).await;
    assert!(fixture.is_miss().await, "the announcement ends the lease");
}

async fn one_reader_gets_the_lease_of_a_cold_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let lease = fixture.lease().await;
    assert!(matches!(fixture.newest(10).await, Lookup::Miss(None)));
    fixture.fill(lease, 20, 9..=20, false).await;
    assert_eq!(fixture.hit(12).await, (20, (9..=20).collect()));
    assert!(matches!(fixture.newest(13).await, Lookup::Short));

    fixture.evict().await;
    let late = fixture.lease().await;
    fixture.end_lease().await;
    let lease = fixture.lease().await;
    fixture.fill(late, 19, 8..=19, false).await;
    assert!(
        fixture.is_miss().await,
        "an ended lease does not fill the window"
    );
    fixture.fill(lease, 20, 9..=20, false).await;
    assert_eq!(fixture.hit(1).await, (20, vec![20]));
}

async fn empty_windows_and_windows_with_gaps_are_hits<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 0, NONE, true).await;
    assert_eq!(fixture.hit(10).await, (0, vec![]));
    fixture.save(1..=1).await;
    assert_eq!(fixture.hit(10).await, (1, vec![1]));

    // A truncation removed 3 to 5.
    fixture.evict().await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 5, 1..=2, true).await;
    assert_eq!(fixture.hit(10).await, (5, vec![1, 2]));
    fixture.save(6..=6).await;
    assert_eq!(fixture.hit(10).await, (6, vec![1, 2, 6]));
}

async fn a_fill_is_trimmed_to_the_capacity<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 30, 1..=30, true).await;
    assert_eq!(fixture.hit(12).await, (30, (19..=30).collect()));
    assert!(matches!(fixture.newest(13).await, Lookup::Short));
}

async fn commits_published_out_of_order_drop_the_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let (first, second) = (fixture.announce().await, fixture.announce().await);
    fixture.publish(second, 2..=2).await;
    assert!(matches!(fixture.newest(10).await, Lookup::Busy));
    fixture.publish(first, 1..=1).await;
    assert!(fixture.is_miss().await, "a window without 2 is not started");

    let fixture = R::fixture().await;
    fixture.save(1..=1).await;
    let (first, second) = (fixture.announce().await, fixture.announce().await);
    fixture.publish(second, 3..=3).await;
    fixture.publish(first, 2..=2).await;
    assert!(fixture.is_miss().await, "a gap drops the window");
}

async fn publishing_known_messages_changes_nothing<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=3).await;
    let announcement = fixture.announce().await;
    fixture.publish(announcement, 2..=3).await;
    assert_eq!(fixture.hit(10).await, (3, vec![1, 2, 3]));
}

async fn a_replay_drops_a_window_that_ends_before_it<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let announcement = fixture.announce().await;
    fixture.recent.publish_replay(announcement, 2).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));
    let announcement = fixture.announce().await;
    fixture.recent.publish_replay(announcement, 3).await;
    assert!(fixture.is_miss().await);

    let fixture = R::fixture().await;
    let (slow, replay) = (fixture.announce().await, fixture.announce().await);
    fixture.recent.publish_replay(replay, 2).await;
    fixture.publish(slow, 1..=1).await;
    assert!(
        fixture.is_miss().await,
        "the replay proves that there are more messages"
    );
}

async fn retire_drops_the_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let announcement = fixture.announce().await;
    fixture.recent.retire(announcement).await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 2, 1..=1, true).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1]));

    let fixture = R::fixture().await;
    let (slow, removal) = (fixture.announce().await, fixture.announce().await);
    fixture.recent.retire(removal).await;
    fixture.publish(slow, 1..=2).await;
    assert!(
        fixture.is_miss().await,
        "the published messages may have been removed"
    );
}

async fn abort_leaves_the_window_unchanged<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let announcement = fixture.announce().await;
    fixture.recent.abort(announcement).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));
}

async fn an_expired_announcement_drops_the_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let slow = fixture.announce().await;
    fixture.expire_announcements().await;
    let lease = fixture.lease().await;
    assert!(fixture.has_fields("p:", 0).await);
    fixture.fill(lease, 2, 1..=2, true).await;
    fixture.publish(slow, 3..=3).await;
    assert!(fixture.is_miss().await, "its announcement has expired");
}

async fn a_window_that_ends_before_min_seq_is_dropped<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    assert!(matches!(
        fixture
            .recent
            .newest(fixture.id, Claim::Unclaimed, 10, 2)
            .await,
        Lookup::Hit(_)
    ));
    let Lookup::Miss(Some(lease)) = fixture
        .recent
        .newest(fixture.id, Claim::Unclaimed, 10, 3)
        .await
    else {
        panic!("expected a miss with a lease");
    };
    assert!(fixture.is_miss().await);
    fixture.fill(lease, 3, 1..=3, true).await;
    assert_eq!(fixture.hit(10).await, (3, vec![1, 2, 3]));
}

#[tokio::test]
async fn a_key_with_only_a_lease_expires_with_it() {
    let fixture = WindowFixture::new().await;
    let lease = fixture.lease().await;
    assert!((1..=10_000).contains(&fixture.pttl().await));
    fixture.fill(lease, 1, 1..=1, true).await;
    assert!(fixture.pttl().await > 10_000);
}

async fn a_save_beyond_the_capacity_makes_a_window_partial<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 0, NONE, true).await;
    let many = i64::from(fixture.recent.capacity()) + 5;
    fixture.save(1..=many).await;
    let newest = fixture.newest(u32::try_from(many).unwrap()).await;
    assert!(matches!(newest, Lookup::Short), "{newest:?}");
}

async fn forget_drops_the_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let announcement = fixture.announce().await;
    fixture.recent.forget(announcement).await;
    assert!(fixture.is_miss().await);
    // Of a window that did not exist, nothing remains.
    let unknown = R::fixture().await;
    let announcement = unknown.announce().await;
    unknown.recent.forget(announcement).await;
    assert!(R::is_forgotten(&unknown).await);
}

#[tokio::test]
async fn every_use_resets_the_ttl() {
    let fixture = WindowFixture::new().await;
    fixture.save(1..=2).await;
    let ttl = i64::try_from(TTL.as_millis()).unwrap();
    let shorten = async || {
        call(&shared_url(), &["PEXPIRE", &fixture.key, "500"])
            .await
            .unwrap()
    };
    assert!((1..=ttl).contains(&fixture.pttl().await));
    shorten().await;
    fixture.hit(10).await;
    assert!((ttl - 5_000..=ttl).contains(&fixture.pttl().await));
    shorten().await;
    let announcement = fixture.announce().await;
    assert!((ttl - 5_000..=ttl).contains(&fixture.pttl().await));
    shorten().await;
    fixture.publish(announcement, 3..=3).await;
    assert!((ttl - 5_000..=ttl).contains(&fixture.pttl().await));
    fixture.evict().await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 3, 1..=3, true).await;
    assert!((ttl - 5_000..=ttl).contains(&fixture.pttl().await));

    // The key outlives every announced write.
    let announcement = fixture
        .recent
        .announce(fixture.id, Claim::Unclaimed, TTL * 2)
        .await
        .unwrap();
    assert!(fixture.pttl().await > ttl);
    fixture.save(4..=4).await;
    assert!(fixture.pttl().await > ttl);
    fixture.recent.abort(announcement).await;
}

#[tokio::test]
async fn an_invalid_window_is_dropped() {
    let fixture = WindowFixture::new().await;
    let invalid_fields: [&[&str]; 11] = [
        &["s:2", "garbage"],
        &["s:2", "sixteen bytes id and no message"],
        &["s:two", "text"],
        &["s:3", "text"],
        &["hi", "many"],
        &["hi", "1"],
        &["owner", ""],
        &["owner", "\u{0}"],
        &["v", "3"],
        &["v", "3 4 12 100 1 0 0 0 9"],
        &["v", "4 3 12 100 1 0 0 0 9"],
    ];
    for invalid in invalid_fields {
        fixture.evict().await;
        let lease = fixture.lease().await;
        fixture.fill(lease, 3, 1..=3, true).await;
        fixture.hit(10).await;
        let command = [&["HSET", &fixture.key], invalid].concat();
        call(&shared_url(), &command).await.unwrap();
        assert!(fixture.is_miss().await, "{invalid:?}");
        assert_eq!(fixture.fields("s:").await, 0, "{invalid:?}");
        assert_eq!(fixture.fields("hi").await, 0, "{invalid:?}");
        assert!(fixture.is_miss().await, "{invalid:?}");
    }
    // An unknown field is ignored.
    fixture.evict().await;
    fixture.save(4..=4).await;
    let lease = fixture.lease().await;
    fixture.fill(lease, 4, 1..=4, true).await;
    call(&shared_url(), &["HSET", &fixture.key, "new", "field"])
        .await
        .unwrap();
    assert_eq!(fixture.hit(10).await.0, 4);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_cold_window() {
    let fixture = WindowFixture::new().await;
    let set_string = async || {
        call(&shared_url(), &["SET", &fixture.key, "text"])
            .await
            .unwrap()
    };
    set_string().await;
    assert!(fixture.is_miss().await);
    set_string().await;
    let announcement = fixture.announce().await;
    assert!(matches!(fixture.newest(10).await, Lookup::Busy));
    set_string().await;
    fixture.publish(announcement, 1..=1).await;
    assert!(fixture.is_miss().await);
    set_string().await;
    let announcement = fixture.announce().await;
    set_string().await;
    fixture.recent.abort(announcement).await;
    assert!(fixture.is_miss().await);
    let lease = fixture.new_lease().await;
    set_string().await;
    fixture.fill(lease, 1, 1..=1, true).await;
    assert!(fixture.is_miss().await);
    set_string().await;
    let announcement = fixture.announce().await;
    set_string().await;
    fixture.recent.retire(announcement).await;
    assert!(fixture.is_miss().await);
}

async fn a_window_above_the_size_limit_is_dropped<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let sized = |seq, bytes| {
        let mut message = message(fixture.id, seq);
        message.content = content(&"x".repeat(bytes));
        vec![message]
    };
    let save = async |messages: Vec<_>| {
        let announcement = fixture.announce().await;
        fixture
            .recent
            .publish(announcement, &owner(), &messages, 9)
            .await;
    };
    save(sized(1, WINDOW_BYTES / 2)).await;
    assert_eq!(fixture.hit(10).await.0, 1);
    save(sized(2, WINDOW_BYTES / 2)).await;
    assert!(fixture.is_miss().await, "both messages exceed the limit");
    save(sized(3, WINDOW_BYTES)).await;
    let lease = fixture.new_lease().await;
    let large = sized(3, WINDOW_BYTES);
    fixture.recent.fill(lease, &window(3, large, false)).await;
    assert!(fixture.is_miss().await, "the message exceeds the limit");
    assert!(fixture.has_fields("s:", 0).await);
}

#[tokio::test]
async fn a_sidecar_reads_what_another_published() {
    let fixture = WindowFixture::new().await;
    let other = recent(&connect_and_wait(&shared_url(), &fixture.prefix).await);
    fixture.save(1..=1).await;
    let announcement = other
        .announce(fixture.id, Claim::Unclaimed, LIMIT)
        .await
        .unwrap();
    other
        .publish(announcement, &owner(), &messages(fixture.id, 2..=2), 6)
        .await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));
    let Lookup::Hit(window) = other.newest(fixture.id, Claim::Unclaimed, 10, 2).await else {
        panic!("expected a hit");
    };
    assert_eq!(encoded_seqs(&window.messages), [1, 2]);
    assert_eq!(window.owner, owner());
}

#[tokio::test]
async fn a_hit_needs_no_script_and_every_other_access_is_one() {
    let server = RedisServer::start(&[]).await;
    let fixture = WindowFixture::on(&server.url(), &unique_prefix()).await;
    let reset_counters = async || {
        server.call(&["CONFIG", "RESETSTAT"]).await;
    };
    let commands = async || {
        let stats = server.call(&["INFO", "commandstats"]).await;
        let calls = |name: &str| {
            let prefix = format!("cmdstat_{name}:calls=");
            let line = stats.lines().find_map(|line| line.strip_prefix(&prefix));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        (calls("evalsha"), calls("eval"), calls("hgetall"))
    };
    reset_counters().await;
    fixture.save(1..=2).await;
    assert_eq!(
        commands().await,
        (2, 2, 0),
        "Redis does not know the scripts yet"
    );
    fixture.hit(10).await;
    reset_counters().await;
    for seq in 3..=20 {
        fixture.save(seq..=seq).await;
        fixture.hit(10).await;
    }
    assert_eq!(commands().await, (2 * 18, 0, 18));

    // After SCRIPT FLUSH each script is sent again, also between two steps.
    let announcement = fixture.announce().await;
    server.call(&["SCRIPT", "FLUSH"]).await;
    fixture.publish(announcement, 21..=21).await;
    assert_eq!(fixture.hit(10).await.0, 21);
}

#[tokio::test]
async fn flushing_redis_between_steps_causes_misses_only() {
    let server = RedisServer::start(&[]).await;
    let fixture = WindowFixture::on(&server.url(), &unique_prefix()).await;
    fixture.save(1..=1).await;
    let announcement = fixture.announce().await;
    server.call(&["FLUSHALL"]).await;
    fixture.publish(announcement, 2..=2).await;
    assert!(fixture.is_miss().await);
    let lease = fixture.new_lease().await;
    server.call(&["FLUSHALL"]).await;
    fixture.fill(lease, 1, 1..=1, true).await;
    assert!(fixture.is_miss().await, "the lease was deleted too");
}

#[tokio::test]
async fn an_unused_lease_expires() {
    let fixture = WindowFixture::new().await;
    let _unused = fixture.lease().await;
    test_support::eventually("another lease is granted", async || {
        matches!(fixture.newest(10).await, Lookup::Miss(Some(_)))
    })
    .await;
    assert!(fixture.pttl().await > i64::try_from(Duration::from_secs(1).as_millis()).unwrap());
}

#[tokio::test]
async fn a_window_without_a_version_is_dropped() {
    let fixture = WindowFixture::new().await;
    fixture.save(1..=1).await;
    assert_eq!(fixture.hit(10).await.0, 1);
    fixture.call(&["HDEL", &fixture.key, "v"]).await;
    assert!(fixture.is_miss().await);
    let lease = fixture.new_lease().await;
    fixture.fill(lease, 2, 1..=2, true).await;
    assert_eq!(fixture.hit(10).await.0, 2);
    fixture.call(&["HDEL", &fixture.key, "v"]).await;
    fixture.save(3..=3).await;
    assert!(fixture.is_miss().await, "a save does not adopt the window");
}

/// Creates the windows of a sidecar whose store has a history.
async fn recent_with(history: &'static str, prefix: &str) -> RedisRecent {
    let redis = connect_and_wait(&shared_url(), prefix).await;
    recent_of(
        &redis,
        Arc::new(move || Bytes::from_static(history.as_bytes())),
    )
}

/// Two sidecars with windows of one conversation, between which the store went back to an earlier
/// state.
async fn before_and_after() -> [WindowFixture; 2] {
    let prefix = unique_prefix();
    let before = recent_with("before", &prefix).await;
    let mut after =
        WindowFixture::with(recent_with("after", &prefix).await, &shared_url(), &prefix);
    let before = WindowFixture::with(before, &shared_url(), &prefix);
    after.id = before.id;
    after.key.clone_from(&before.key);
    [before, after]
}

#[tokio::test]
async fn window_of_another_history_is_a_miss() {
    let [before, after] = before_and_after().await;
    before.save(1..=2).await;
    assert_eq!(before.hit(10).await, (2, vec![1, 2]));
    let lease = after.lease().await;
    after.fill(lease, 1, 1..=1, true).await;
    assert_eq!(after.hit(10).await, (1, vec![1]));
    assert!(before.is_miss().await);
}

#[tokio::test]
async fn announcement_of_another_history_does_not_publish() {
    let [before, after] = before_and_after().await;
    // The window may lack what was published in between.
    let announcement = before.announce().await;
    let [late, other] = [announcement, after.announce().await];
    after.publish(other, 1..=1).await;
    before.publish(late, 2..=2).await;
    assert!(after.is_miss().await);
    assert!(before.is_miss().await);
}

#[tokio::test]
async fn lease_of_another_history_does_not_fill() {
    let [before, after] = before_and_after().await;
    let lease = before.lease().await;
    let key = before.key.clone();
    // The lease was copied to the other server.
    let value = before.call(&["HGET", &key, "lease"]).await;
    let copied = value.replace("/before ", "/after ");
    before.call(&["HSET", &key, "lease", &copied]).await;
    before.fill(lease, 2, 1..=2, true).await;
    assert!(after.is_miss().await);
    assert_eq!(after.fields("s:").await, 0);
}

async fn other_messages_under_the_same_numbers_drop_the_window<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=3).await;
    // The store lost the third message and assigned its number again.
    let mut other = message(fixture.id, 3);
    other.id = message(fixture.id, 99).id;
    let announcement = fixture.announce().await;
    fixture
        .recent
        .publish(announcement, &owner(), &[other], 9)
        .await;
    assert!(fixture.is_miss().await);
}

#[tokio::test]
async fn windows_are_read_only_over_a_trusted_connection() {
    let fixture = WindowFixture::new().await;
    fixture.save(1..=2).await;
    let (id, recent) = (fixture.id, &fixture.recent);
    let connection = recent.connection().unwrap();
    for other in [Some(connection + 1), None] {
        recent.trust(other);
        assert!(matches!(
            recent.newest(id, Claim::Unclaimed, 10, 0).await,
            Lookup::Unavailable
        ));
    }
    recent.trust(Some(connection));
    assert!(matches!(
        recent.newest(id, Claim::Unclaimed, 10, 0).await,
        Lookup::Hit(_)
    ));
}

#[tokio::test]
async fn one_process_at_a_time_completes_pending_invalidations() {
    let prefix = unique_prefix();
    let [first, second] = [
        recent_with("one", &prefix).await,
        recent_with("one", &prefix).await,
    ];
    let long = Duration::from_mins(1);
    assert!(first.claim_completion(long).await);
    assert!(!second.claim_completion(long).await);
    // The first one could not complete them.
    first.record_completion(false, long).await;
    assert!(second.claim_completion(long).await);
    second.record_completion(true, long).await;
    assert!(!first.claim_completion(long).await);
    // What was completed in another history of the store counts for nobody else.
    let promoted = recent_with("two", &prefix).await;
    promoted.record_completion(true, long).await;
    assert!(first.claim_completion(long).await);
    first
        .record_completion(true, Duration::from_millis(1))
        .await;
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(second.claim_completion(long).await);
}

async fn invalidated_window_is_a_miss<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    assert!(fixture.recent.invalidate(fixture.id).await);
    assert!(fixture.is_miss().await);
}

/// Returns the fields of a hash in order, with values in hexadecimal digits.
const FIELDS: &str = "
    local found, lines = redis.call('HGETALL', KEYS[1]), {}
    for i = 1, #found, 2 do
        local value = found[i + 1]:gsub('.', function(c) return ('%02x'):format(c:byte()) end)
        lines[#lines + 1] = found[i] .. '=' .. value
    end
    table.sort(lines)
    return table.concat(lines, ' ')";

/// Fields of a window, and its expiry in seconds.
async fn state(fixture: &WindowFixture) -> (String, i64) {
    let fields = fixture.call(&["EVAL", FIELDS, "1", &fixture.key]).await;
    (fields, fixture.pttl().await)
}

#[tokio::test]
async fn another_user_changes_nothing_in_any_state_of_a_window() {
    let fixture = WindowFixture::new().await;
    let bob = UserId::parse("bob").unwrap();
    let reject = async |what: &str| {
        let (fields, ttl) = state(&fixture).await;
        let claim = Claim::Unconfirmed(&bob);
        for min_seq in [0, 1, 100] {
            let lookup = fixture.recent.newest(fixture.id, claim, 10, min_seq).await;
            assert!(matches!(lookup, Lookup::OwnerUnknown), "{what}: {lookup:?}");
        }
        let announced = fixture.recent.announce(fixture.id, claim, TTL * 2).await;
        assert!(announced.is_none(), "{what}");
        let (fields_after, ttl_after) = state(&fixture).await;
        assert_eq!(fields_after, fields, "{what}");
        assert!(ttl_after <= ttl, "{what}");
    };
    reject("missing").await;
    let lease = fixture.lease().await;
    reject("leased").await;
    fixture.fill(lease, 2, 1..=2, true).await;
    reject("filled").await;
    fixture.save(3..=3).await;
    reject("published").await;
    let announcement = fixture.announce().await;
    reject("announced").await;
    fixture.publish(announcement, 4..=4).await;
    assert_eq!(fixture.hit(10).await, (4, vec![1, 2, 3, 4]));
    let _crashed = fixture.announce().await;
    fixture.expire_announcements().await;
    reject("abandoned").await;
    assert!(fixture.is_miss().await);
    reject("cold").await;
    fixture.recent.retire(fixture.announce().await).await;
    reject("retired").await;
    assert_eq!(fixture.recent.pending_invalidations(), 0);
}

async fn the_store_confirms_an_owner_whom_the_window_does_not_know<R: TestedWindow>() {
    let fixture = R::fixture().await;
    let (recent, id, ann) = (&fixture.recent, fixture.id, owner());
    let read = async |claim| recent.newest(id, claim, 10, 0).await;
    let unconfirmed = Claim::Unconfirmed(&ann);
    assert!(matches!(read(unconfirmed).await, Lookup::OwnerUnknown));
    assert!(recent.announce(id, unconfirmed, LIMIT).await.is_none());
    let Lookup::Miss(Some(lease)) = read(unconfirmed.confirmed()).await else {
        panic!("expected a lease");
    };
    fixture.fill(lease, 1, 1..=1, true).await;
    assert!(matches!(read(unconfirmed).await, Lookup::Hit(_)));
    // The owner stays known when the window becomes cold, and until the window is removed.
    assert!(matches!(
        recent.newest(id, unconfirmed, 10, 2).await,
        Lookup::Miss(Some(_))
    ));
    let announcement = recent.announce(id, unconfirmed, LIMIT).await.unwrap();
    recent.retire(announcement).await;
    assert!(matches!(read(unconfirmed).await, Lookup::OwnerUnknown));

    let announcement = recent.announce(id, unconfirmed.confirmed(), LIMIT).await;
    assert!(matches!(read(unconfirmed).await, Lookup::Busy));
    recent.forget(announcement.unwrap()).await;
    assert!(matches!(read(unconfirmed).await, Lookup::OwnerUnknown));
}

async fn a_window_that_outlived_its_conversation_is_dropped_for_the_new_owner<R: TestedWindow>() {
    let fixture = R::fixture().await;
    fixture.save(1..=2).await;
    let bob = UserId::parse("bob").unwrap();
    let claim = Claim::Confirmed(&bob);
    let lookup = fixture.recent.newest(fixture.id, claim, 10, 0).await;
    assert!(matches!(lookup, Lookup::Miss(Some(_))), "{lookup:?}");
    let lookup = fixture
        .recent
        .newest(fixture.id, Claim::Unconfirmed(&bob), 10, 0)
        .await;
    assert!(matches!(lookup, Lookup::Miss(None)), "{lookup:?}");
}

/// Saves the first message of a conversation.
async fn start_window(recent: &InProcessRecent, bytes: usize) -> ConversationId {
    let id = conversation_id();
    let mut first = message(id, 1);
    first.content = content(&"x".repeat(bytes));
    let announcement = recent.announce(id, Claim::Unclaimed, LIMIT).await.unwrap();
    recent.publish(announcement, &owner(), &[first], 3).await;
    id
}

async fn is_hit(recent: &InProcessRecent, id: ConversationId) -> bool {
    let lookup = recent.newest(id, Claim::Unclaimed, 10, 0).await;
    matches!(lookup, Lookup::Hit(_))
}

#[tokio::test]
async fn windows_that_were_not_used_for_the_longest_time_leave_first() {
    const MAX_BYTES: usize = 256 << 10;
    let recent = InProcessRecent::new(12, MAX_BYTES);
    let used = start_window(&recent, 1_000).await;
    let mut others = Vec::new();
    let mut fullest = 0;
    for _ in 0..1_000 {
        assert!(is_hit(&recent, used).await, "it was used recently");
        others.push(start_window(&recent, 1_000).await);
        assert!(recent.stored_bytes() <= MAX_BYTES);
        fullest = fullest.max(recent.stored_bytes());
    }
    assert!(fullest > MAX_BYTES - 4_000, "the bound is used");
    let stored = recent.stored_conversations();
    let (left, kept) = others.split_at(others.len() + 1 - stored);
    for id in kept {
        assert!(is_hit(&recent, *id).await);
    }
    for id in left {
        assert!(!is_hit(&recent, *id).await);
    }
    // Large windows displace as many others as their bytes require.
    start_window(&recent, 100_000).await;
    assert!(recent.stored_bytes() <= MAX_BYTES);
    assert!((50..stored - 20).contains(&recent.stored_conversations()));
    // A window that would displace all others is not kept.
    let huge = start_window(&recent, MAX_BYTES).await;
    assert!(!is_hit(&recent, huge).await);
    assert!(recent.stored_conversations() > 50);
}

#[tokio::test]
async fn reads_that_find_no_conversation_leave_nothing_in_the_process() {
    let recent = InProcessRecent::new(12, 1 << 20);
    let kept = start_window(&recent, 100).await;
    for _ in 0..10_000 {
        let lookup = recent
            .newest(conversation_id(), Claim::Unclaimed, 10, 0)
            .await;
        assert!(matches!(lookup, Lookup::Miss(Some(_))));
    }
    assert_eq!(recent.stored_conversations(), 1);
    assert!(is_hit(&recent, kept).await);
}

#[tokio::test]
async fn announced_writes_of_a_window_that_has_left_do_not_restore_it() {
    let recent = InProcessRecent::new(12, 1 << 20);
    let id = start_window(&recent, 100).await;
    let first = recent.announce(id, Claim::Unclaimed, LIMIT).await.unwrap();
    recent.evict(id);
    let Lookup::Miss(Some(lease)) = recent.newest(id, Claim::Unclaimed, 10, 0).await else {
        panic!("expected a lease");
    };
    let saved = [message(id, 2)];
    recent.publish(first, &owner(), &saved, 6).await;
    // The reader may have read the store before the commit.
    let read = window(1, vec![message(id, 1)], true);
    recent.fill(lease, &read).await;
    assert!(!is_hit(&recent, id).await);
}
