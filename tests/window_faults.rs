//! The recent window, and the client below it, when Redis is away, frozen, full,
//! read-only or still loading: every call answers, nothing stale is ever shown,
//! and it all comes back by itself.

#![expect(clippy::unwrap_used, reason = "a test may fail")]
#![expect(clippy::panic, reason = "a test may fail")]

use std::time::{Duration, Instant};

use conversation_memory::{
    domain::{NewSession, SessionId},
    recent::{Lookup, RecentWindow},
    redis::{Redis, RedisError, RedisSettings, RedisTarget, Refusal, Script},
    sessions::{Sessions, redis::RedisSessions},
};
use test_support::window::{Bench, NONE, recent};
use test_support::{
    PATIENCE, eventually,
    redis_server::{RedisServer, attached, connect},
};

const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];

/// A sidecar with the settings of a real one, which is attached.
async fn sidecar(server: &RedisServer) -> (Redis, Bench) {
    let redis = connect(&server.url(), "");
    redis.available().await;
    let bench = Bench::with(recent(&redis), &server.url(), "");
    (redis, bench)
}

/// Waits until a window that lacks a save has been dropped, and sees that it is
/// never shown meanwhile, neither before nor after.
async fn comes_back_without_what_is_stale(bench: &Bench) {
    let mut lease = None;
    eventually("what was not published is dropped", async || {
        match bench.newest(10).await {
            Lookup::Hit(window) => panic!("a stale window up to {}", window.last_seq),
            Lookup::Miss(Some(given)) => lease = Some(given),
            _ => {}
        }
        lease.is_some()
    })
    .await;
    assert_eq!(bench.recent.unpublished(), 0);
    bench.fill(lease.unwrap(), 2, 1..=2, true).await;
    assert_eq!(bench.hit(10).await, (2, vec![1, 2]));
}

#[tokio::test]
async fn a_frozen_redis_costs_one_time_out() {
    let server = RedisServer::start(&[]).await;
    let (redis, bench) = sidecar(&server).await;
    bench.save(1..=1).await;
    server.freeze();
    assert!(matches!(bench.newest(10).await, Lookup::Unavailable));
    assert!(!redis.is_available(), "the breaker is open");
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(bench.newest(10).await, Lookup::Unavailable));
    }
    // One that asked Redis would take 40 s.
    assert!(start.elapsed() < Duration::from_secs(5));
    bench.save(2..=2).await;
    assert_eq!(bench.recent.unpublished(), 1);
    server.thaw();
    comes_back_without_what_is_stale(&bench).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_redis_that_freezes_in_mid_protocol_shows_nothing_stale() {
    let server = RedisServer::start(&[]).await;
    for frozen_at in 0..4 {
        let (redis, bench) = sidecar(&server).await;
        bench.save(1..=1).await;
        let freeze = |at| {
            if frozen_at == at {
                server.freeze();
            }
        };
        freeze(0);
        let announced = bench.announce().await;
        freeze(1);
        match frozen_at {
            2 => {
                freeze(2);
                bench.recent.publish_replay(announced, 2).await;
            }
            3 => {
                freeze(3);
                bench.recent.retire(announced).await;
            }
            _ => bench.publish(announced, 2..=2).await,
        }
        assert_eq!(bench.recent.unpublished(), 1, "{frozen_at}");
        server.thaw();
        comes_back_without_what_is_stale(&bench).await;
        redis.shutdown().await;
    }
}

#[tokio::test]
async fn a_reader_that_redis_did_not_answer_fills_nothing_stale() {
    let server = RedisServer::start(&[]).await;
    let (redis, bench) = sidecar(&server).await;
    let lease = bench.lease().await;
    server.freeze();
    bench.save(1..=2).await;
    // What the reader read from the store before the save.
    bench.fill(lease, 0, NONE, true).await;
    server.thaw();
    comes_back_without_what_is_stale(&bench).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_redis_that_is_refused_at_first_is_attached_later() {
    let mut server = RedisServer::stopped(&[]);
    let redis = connect(&server.url(), "");
    let bench = Bench::with(recent(&redis), &server.url(), "");
    assert!(!redis.is_available());
    bench.save(1..=1).await;
    assert!(matches!(bench.newest(10).await, Lookup::Unavailable));
    assert_eq!(bench.recent.unpublished(), 1);
    server.run().await;
    comes_back_without_what_is_stale(&bench).await;

    server.kill();
    eventually("the loss is noticed", async || {
        matches!(bench.newest(10).await, Lookup::Unavailable) && !redis.is_available()
    })
    .await;
    bench.save(3..=3).await;
    server.run().await;
    eventually("it is attached again", async || {
        bench.recent.unpublished() == 0 && bench.is_miss().await
    })
    .await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_full_redis_shows_nothing_stale() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let (redis, bench) = sidecar(&server).await;
    bench.save(1..=1).await;
    let announced = bench.announce().await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let set = Script::new("test", "return redis.call('SET', KEYS[1], '1')");
    let refused = redis.run(&set, "other", &[]).await;
    assert_eq!(refused, Err(RedisError::Refused(Refusal::OutOfMemory)));

    bench.publish(announced, 2..=2).await;
    assert!(!matches!(bench.newest(10).await, Lookup::Hit(window) if window.last_seq < 2));
    bench.save(3..=3).await;
    assert!(
        matches!(bench.newest(10).await, Lookup::Miss(None)),
        "it can be dropped, not filled"
    );
    assert_eq!(bench.recent.unpublished(), 0);
    assert!(redis.is_available(), "an answer is no outage");

    server.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let lease = bench.lease().await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]).await;
    bench.fill(lease, 3, 1..=3, true).await;
    assert!(bench.is_miss().await);
    server.call(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let lease = bench.lease_again().await;
    bench.fill(lease, 3, 1..=3, true).await;
    assert_eq!(bench.hit(10).await.0, 3);
    redis.shutdown().await;
}

#[tokio::test]
async fn a_read_only_redis_shows_nothing_stale() {
    let server = RedisServer::start(&[]).await;
    let (redis, bench) = sidecar(&server).await;
    bench.save(1..=1).await;
    server.call(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let newest = bench.newest(10).await;
    assert!(matches!(newest, Lookup::Unavailable), "{newest:?}");
    bench.save(2..=2).await;
    assert_eq!(bench.recent.unpublished(), 1);
    server.call(&["REPLICAOF", "NO", "ONE"]).await;
    comes_back_without_what_is_stale(&bench).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_loading_redis_shows_nothing_stale() {
    let mut server = RedisServer::start(&[]).await;
    let (redis, bench) = sidecar(&server).await;
    bench.save(1..=1).await;
    let fill = "for i = 1, 2000 do redis.call('SET', 'filler:' .. i, string.rep('x', 100)) end";
    server.call(&["EVAL", fill, "0"]).await;
    server.call(&["SAVE"]).await;
    server.kill();
    // A millisecond for each key, and an answer now and then.
    server.add_options(&["--key-load-delay", "1000"]);
    server.add_options(&["--loading-process-events-interval-bytes", "1024"]);
    server.launch();
    eventually("it is loading", async || {
        let answer = test_support::redis_server::call(&server.url(), &["PING"]).await;
        answer.is_ok_and(|answer| answer.contains("LOADING"))
    })
    .await;
    assert!(matches!(bench.newest(10).await, Lookup::Unavailable));
    bench.save(2..=2).await;
    assert_eq!(bench.recent.unpublished(), 1);
    // What was loaded is the window without the second message.
    comes_back_without_what_is_stale(&bench).await;
    redis.shutdown().await;
}

#[tokio::test]
async fn credentials_that_are_put_right_attach() {
    let mut server = RedisServer::start(&["--requirepass", "other"]).await;
    let url = server.url().replace("redis://", "redis://:right@");
    let redis = connect(&url, "");
    let script = Script::new("test", "return 1");
    let answer = redis.run(&script, "key", &[]).await;
    assert_eq!(answer, Err(RedisError::Unavailable));
    server.kill();
    server.add_options(&["--requirepass", "right"]);
    server.launch();
    eventually("it is attached", async || {
        redis.run(&script, "key", &[]).await.is_ok()
    })
    .await;
    redis.shutdown().await;
}

#[tokio::test]
async fn a_frozen_redis_does_not_hold_up_the_end() {
    let server = RedisServer::start(&[]).await;
    let (redis, bench) = sidecar(&server).await;
    server.freeze();
    bench.save(1..=1).await;
    let start = Instant::now();
    redis.shutdown().await;
    assert!(start.elapsed() < Duration::from_secs(5));
    let answer = redis
        .run(&Script::new("test", "return 1"), "key", &[])
        .await;
    assert_eq!(answer, Err(RedisError::Unavailable));
    server.thaw();
}

#[tokio::test]
async fn a_database_is_chosen_and_a_prefix_kept() {
    let server = RedisServer::start(&[]).await;
    let target = RedisTarget::new("127.0.0.1", server.port(), None, Some(3));
    let settings = RedisSettings {
        key_prefix: "mine:".to_owned(),
        ..RedisSettings::default()
    };
    let redis = Redis::connect(target, settings);
    redis.available().await;
    let bench = Bench::with(recent(&redis), &server.url(), "mine:");
    bench.save(1..=1).await;
    let keyspace = server.call(&["INFO", "keyspace"]).await;
    assert!(keyspace.contains("db3:keys=1"), "{keyspace}");
    let list = Script::new("test", "return redis.call('KEYS', 'mine:history:*')");
    let keys = redis.run(&list, "key", &[]).await.unwrap();
    assert_eq!(keys.list().unwrap().len(), 1);
    redis.shutdown().await;
}

#[tokio::test]
async fn a_cluster_is_used_without_detours() {
    let nodes = ["0 8191", "8192 16383"].map(|slots| (RedisServer::stopped(&CLUSTER), slots));
    let mut servers = Vec::new();
    for (mut server, slots) in nodes {
        server.run().await;
        let (from, to) = slots.split_once(' ').unwrap();
        server.call(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        servers.push(server);
    }
    let port = servers[1].port().to_string();
    servers[0]
        .call(&["CLUSTER", "MEET", "127.0.0.1", &port])
        .await;
    for server in &servers {
        eventually("the cluster is up", async || {
            let info = server.call(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        })
        .await;
    }

    let url = servers[0].url().replace("redis://", "redis-cluster://");
    let redis = attached(&url, "").await;
    let sessions = RedisSessions::new(redis.clone(), test_support::window::TTL);
    for _ in 0..20 {
        let bench = Bench::with(recent(&redis), &servers[0].url(), "");
        bench.save(1..=1).await;
        assert_eq!(bench.hit(10).await, (1, vec![1]));
        let new = NewSession {
            id: SessionId::from_uuid(bench.id.as_uuid()),
            user_id: test_support::window::owner(),
            dept_id: None,
            conversation_id: Some(bench.id),
        };
        sessions.start(&new).await.unwrap().unwrap();
    }
    assert_eq!(
        sessions
            .list(&test_support::window::owner())
            .await
            .unwrap()
            .len(),
        20
    );
    for server in &servers {
        let keys: u32 = server.call(&["DBSIZE"]).await.parse().unwrap();
        assert!(keys > 0, "both nodes are used");
        let errors = server.call(&["INFO", "errorstats"]).await;
        assert!(!errors.contains("MOVED"), "{errors}");
    }
    redis.shutdown().await;
}

#[tokio::test]
async fn a_failover_is_followed() {
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
    eventually("the sentinel knows the replica", async || {
        let replicas = sentinel.call(&["SENTINEL", "REPLICAS", "main"]).await;
        replicas.contains(&replica.port().to_string())
    })
    .await;

    let url = sentinel.url().replace("redis://", "redis-sentinel://");
    let redis = connect(&format!("{url}?sentinelServiceName=main"), "");
    let found = tokio::time::timeout(PATIENCE, redis.available()).await;
    assert!(found.is_ok(), "the sentinel names the server");
    let bench = Bench::with(recent(&redis), &replica.url(), "");
    bench.save(1..=1).await;
    assert_eq!(bench.hit(10).await, (1, vec![1]));
    eventually("the replica has it", async || bench.fields("m:").await == 1).await;
    main.kill();
    eventually("the loss is noticed", async || {
        matches!(bench.newest(10).await, Lookup::Unavailable)
    })
    .await;
    bench.save(2..=2).await;
    // The replica has the window without the second message.
    comes_back_without_what_is_stale(&bench).await;
    redis.shutdown().await;
}
