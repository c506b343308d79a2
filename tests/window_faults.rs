//! The recent window and the Redis client while Redis is unreachable, frozen, out
//! of memory, read-only or loading: every call returns, no read is stale, and the
//! window recovers without intervention.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::time::Duration;

use conversation_memory::{
    domain::{NewSession, SessionId},
    recent::{Lookup, RecentWindow},
    redis::{ErrorReply, Redis, RedisError, RedisSettings, RedisTarget, Script},
    sessions::{SessionQuery, Sessions, redis::RedisSessions},
};
use test_support::{
    completes, eventually,
    redis_server::{RedisServer, connect, connect_and_wait},
    stopwatch::Stopwatch,
    window::{NONE, WindowFixture, recent},
};

/// Starts a client with the settings of a sidecar and waits until it is connected.
async fn connected(server: &RedisServer) -> (Redis, WindowFixture) {
    let redis = connect(&server.url(), "");
    redis.wait_until_available().await;
    let fixture = WindowFixture::with(recent(&redis), &server.url(), "");
    (redis, fixture)
}

/// Waits until the window, which lacks a save, has been dropped; asserts that no read
/// returns it, and that it can be filled again.
async fn assert_recovers_without_stale_reads(fixture: &WindowFixture) {
    let mut lease = None;
    eventually("the window is dropped", async || {
        match fixture.newest(10).await {
            Lookup::Hit(window) => panic!("a stale window up to {}", window.last_seq),
            Lookup::Miss(Some(granted)) => lease = Some(granted),
            _ => {}
        }
        lease.is_some()
    })
    .await;
    assert_eq!(fixture.recent.pending_invalidations(), 0);
    fixture.fill(lease.unwrap(), 2, 1..=2, true).await;
    assert_eq!(fixture.hit(10).await, (2, vec![1, 2]));
}

#[tokio::test]
async fn a_frozen_redis_costs_one_timeout() {
    let server = RedisServer::start(&[]).await;
    let (redis, fixture) = connected(&server).await;
    fixture.save(1..=1).await;
    let minute = Duration::from_mins(1);
    fixture.recent.record_completion(true, minute).await;
    assert!(!fixture.recent.claim_completion(minute).await);
    server.freeze();
    assert!(matches!(fixture.newest(10).await, Lookup::Unavailable));
    assert!(!redis.is_available(), "the circuit breaker is open");
    assert!(fixture.recent.claim_completion(minute).await);
    let start = Stopwatch::start();
    for _ in 0..1_000 {
        assert!(matches!(fixture.newest(10).await, Lookup::Unavailable));
    }
    // Calls that were sent to Redis would take 40 s.
    assert!(start.elapsed() < Duration::from_secs(5));
    fixture.save(2..=2).await;
    assert_eq!(fixture.recent.pending_invalidations(), 1);
    server.thaw();
    assert_recovers_without_stale_reads(&fixture).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn freezing_redis_between_steps_causes_no_stale_read() {
    let server = RedisServer::start(&[]).await;
    for frozen_at in 0..4 {
        let (redis, fixture) = connected(&server).await;
        fixture.save(1..=1).await;
        let freeze = |at| {
            if frozen_at == at {
                server.freeze();
            }
        };
        freeze(0);
        let announcement = fixture.announce().await;
        freeze(1);
        match frozen_at {
            2 => {
                freeze(2);
                fixture.recent.publish_replay(announcement, 2).await;
            }
            3 => {
                freeze(3);
                fixture.recent.retire(announcement).await;
            }
            _ => fixture.publish(announcement, 2..=2).await,
        }
        assert_eq!(fixture.recent.pending_invalidations(), 1, "{frozen_at}");
        server.thaw();
        assert_recovers_without_stale_reads(&fixture).await;
        redis.shutdown().await;
    }
}

#[tokio::test]
async fn a_fill_after_an_unpublished_save_causes_no_stale_read() {
    let server = RedisServer::start(&[]).await;
    let (redis, fixture) = connected(&server).await;
    let lease = fixture.lease().await;
    server.freeze();
    fixture.save(1..=2).await;
    // The reader read the store before the save.
    fixture.fill(lease, 0, NONE, true).await;
    server.thaw();
    assert_recovers_without_stale_reads(&fixture).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn the_client_connects_once_redis_starts() {
    let mut server = RedisServer::stopped(&[]);
    let redis = connect(&server.url(), "");
    let fixture = WindowFixture::with(recent(&redis), &server.url(), "");
    assert!(!redis.is_available());
    fixture.save(1..=1).await;
    assert!(matches!(fixture.newest(10).await, Lookup::Unavailable));
    assert_eq!(fixture.recent.pending_invalidations(), 1);
    server.run().await;
    assert_recovers_without_stale_reads(&fixture).await;

    server.kill();
    eventually("the outage is detected", async || {
        matches!(fixture.newest(10).await, Lookup::Unavailable) && !redis.is_available()
    })
    .await;
    fixture.save(3..=3).await;
    server.run().await;
    eventually("the client is connected again", async || {
        fixture.recent.pending_invalidations() == 0 && fixture.is_miss().await
    })
    .await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_full_redis_causes_no_stale_read() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let (redis, fixture) = connected(&server).await;
    fixture.save(1..=1).await;
    let announcement = fixture.announce().await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let set = Script::new("test", "return redis.call('SET', KEYS[1], '1')");
    let result = redis.run(&set, "other", &[]).await;
    assert_eq!(result, Err(RedisError::ErrorReply(ErrorReply::OutOfMemory)));

    fixture.publish(announcement, 2..=2).await;
    assert!(!matches!(fixture.newest(10).await, Lookup::Hit(window) if window.last_seq < 2));
    fixture.save(3..=3).await;
    assert!(
        matches!(fixture.newest(10).await, Lookup::Miss(None)),
        "the window can be dropped but not filled"
    );
    assert_eq!(fixture.recent.pending_invalidations(), 0);
    assert!(redis.is_available(), "an error reply is no outage");

    server.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let lease = fixture.lease().await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    fixture.fill(lease, 3, 1..=3, true).await;
    assert!(fixture.is_miss().await);
    server.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let lease = fixture.new_lease().await;
    fixture.fill(lease, 3, 1..=3, true).await;
    assert_eq!(fixture.hit(10).await.0, 3);
    redis.shutdown().await;
}

#[tokio::test]
async fn a_read_only_redis_causes_no_stale_read() {
    let server = RedisServer::start(&[]).await;
    let (redis, fixture) = connected(&server).await;
    fixture.save(1..=1).await;
    server.call(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let newest = fixture.newest(10).await;
    assert!(matches!(newest, Lookup::Unavailable), "{newest:?}");
    fixture.save(2..=2).await;
    assert_eq!(fixture.recent.pending_invalidations(), 1);
    server.call(&["REPLICAOF", "NO", "ONE"]).await;
    assert_recovers_without_stale_reads(&fixture).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_loading_redis_causes_no_stale_read() {
    let mut server = RedisServer::start(&[]).await;
    let (redis, fixture) = connected(&server).await;
    fixture.save(1..=1).await;
    server.restart_with_slow_load(2_000).await;
    eventually("Redis is loading", async || {
        let answer = test_support::redis_server::call(&server.url(), &["PING"]).await;
        answer.is_ok_and(|answer| answer.contains("LOADING"))
    })
    .await;
    assert!(matches!(fixture.newest(10).await, Lookup::Unavailable));
    fixture.save(2..=2).await;
    assert_eq!(fixture.recent.pending_invalidations(), 1);
    // The loaded window lacks the second message.
    assert_recovers_without_stale_reads(&fixture).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn the_client_connects_once_the_password_matches() {
    let mut server = RedisServer::start(&["--requirepass", "other"]).await;
    let url = server.url().replace("redis://", "redis://:right@");
    let redis = connect(&url, "");
    let script = Script::new("test", "return 1");
    let answer = redis.run(&script, "key", &[]).await;
    assert_eq!(answer, Err(RedisError::Unavailable));
    server.kill();
    server.add_options(&["--requirepass", "right"]);
    server.launch();
    eventually("the client is connected", async || {
        redis.run(&script, "key", &[]).await.is_ok()
    })
    .await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_frozen_redis_does_not_delay_shutdown() {
    let server = RedisServer::start(&[]).await;
    let (redis, fixture) = connected(&server).await;
    server.freeze();
    fixture.save(1..=1).await;
    let start = Stopwatch::start();
    redis.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let answer = redis
        .run(&Script::new("test", "return 1"), "key", &[])
        .await;
    assert_eq!(answer, Err(RedisError::Unavailable));
    server.thaw();
}

#[tokio::test]
async fn uses_the_configured_database_and_key_prefix() {
    let server = RedisServer::start(&[]).await;
    let target = RedisTarget::new("127.0.0.1", server.port(), None, Some(3));
    let settings = RedisSettings {
        key_prefix: "mine:".to_owned(),
        ..RedisSettings::default()
    };
    let redis = Redis::connect(target, settings);
    redis.wait_until_available().await;
    let fixture = WindowFixture::with(recent(&redis), &server.url(), "mine:");
    fixture.save(1..=1).await;
    let keyspace = server.call(&["INFO", "keyspace"]).await;
    assert!(keyspace.contains("db3:keys=1"), "{keyspace}");
    let list = Script::new("test", "return redis.call('KEYS', 'mine:history:*')");
    let keys = redis.run(&list, "key", &[]).await.unwrap();
    assert_eq!(keys.list().unwrap().len(), 1);
    redis.shutdown().await;
}

#[tokio::test]
async fn cluster_calls_are_routed_without_redirects() {
    let servers = RedisServer::start_cluster(&[]).await;
    let url = servers[0].url().replace("redis://", "redis-cluster://");
    let redis = connect_and_wait(&url, "").await;
    let sessions = RedisSessions::new(redis.clone(), test_support::window::TTL, 100);
    for _ in 0..20 {
        let fixture = WindowFixture::with(recent(&redis), &servers[0].url(), "");
        fixture.save(1..=1).await;
        assert_eq!(fixture.hit(10).await, (1, vec![1]));
        let new = NewSession {
            id: SessionId::from_uuid(fixture.id.as_uuid()),
            user_id: test_support::window::owner(),
            dept_id: None,
            conversation_id: Some(fixture.id),
        };
        sessions.start(&new).await.unwrap();
    }
    let query = SessionQuery {
        user_id: test_support::window::owner(),
        after: None,
        limit: 100,
    };
    assert_eq!(sessions.list(&query).await.unwrap().sessions.len(), 20);
    for server in &servers {
        let keys: u32 = server.call(&["DBSIZE"]).await.parse().unwrap();
        assert!(keys > 0, "both nodes hold keys");
        let errors = server.call(&["INFO", "errorstats"]).await;
        assert!(!errors.contains("MOVED"), "{errors}");
    }
    redis.shutdown().await;
}

#[tokio::test]
async fn follows_a_sentinel_failover() {
    let mut main = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&[]).await;
    let main_port = main.port().to_string();
    replica.call(&["REPLICAOF", "127.0.0.1", &main_port]).await;
    eventually("the replica is linked", async || {
        let info = replica.call(&["INFO", "replication"]).await;
        info.contains("master_link_status:up")
    })
    .await;
    let sentinel = RedisServer::start_sentinel().await;
    sentinel
        .call(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &main_port, "1"])
        .await;
    for option in [
        ["down-after-milliseconds", "300"],
        ["failover-timeout", "3000"],
    ] {
        sentinel
            .call(&["SENTINEL", "SET", "main", option[0], option[1]])
            .await;
    }
    eventually("the sentinel has discovered the replica", async || {
        let replicas = sentinel.call(&["SENTINEL", "REPLICAS", "main"]).await;
        replicas.contains(&replica.port().to_string())
    })
    .await;

    let url = sentinel.url().replace("redis://", "redis-sentinel://");
    let redis = connect(&format!("{url}?sentinelServiceName=main"), "");
    completes(
        "the client connects to the server",
        redis.wait_until_available(),
    )
    .await;
    let fixture = WindowFixture::with(recent(&redis), &replica.url(), "");
    fixture.save(1..=1).await;
    assert_eq!(fixture.hit(10).await, (1, vec![1]));
    eventually("the replica has the window", async || {
        fixture.fields("s:").await == 1
    })
    .await;
    main.kill();
    eventually("the outage is detected", async || {
        matches!(fixture.newest(10).await, Lookup::Unavailable)
    })
    .await;
    fixture.save(2..=2).await;
    // The window of the replica lacks the second message.
    assert_recovers_without_stale_reads(&fixture).await;
    redis.shutdown().await;
}
