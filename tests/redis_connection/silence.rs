//! Connections on which nothing arrives any more, although they are not closed.

use std::time::{Duration, Instant};

use conversation_memory::redis::{Redis, RedisError, RedisSettings, RedisTarget, Script};
use futures_util::future::join_all;
use test_support::{
    completes, eventually,
    redis_server::RedisServer,
    tcp_proxy::{Direction, TcpProxy},
};

use crate::{Client, RECOVERY_LIMIT, behind_proxy};

#[tokio::test]
async fn silent_connection_is_replaced_while_calls_are_sent() {
    let (_server, proxy, url) = behind_proxy().await;
    for direction in [Direction::Both, Direction::Requests, Direction::Replies] {
        let client = Client::connected(&url).await;
        let before = client.recovers().await;
        // The same connection becomes silent again and again.
        for _ in 0..2 {
            proxy.silence_direction(direction);
            assert_eq!(client.identity().await, Err(RedisError::NoReply));
            assert_eq!(client.recovers().await, before, "{direction:?}");
        }
        client.redis.shutdown().await;
    }
}

#[tokio::test]
async fn silent_connection_is_replaced_while_nothing_is_sent() {
    let (_server, proxy, url) = behind_proxy().await;
    for direction in [Direction::Both, Direction::Requests, Direction::Replies] {
        let client = Client::connected(&url).await;
        let seen = client.redis.connection();
        proxy.silence_direction(direction);
        let unavailable = client.redis.connection_changed(seen);
        let unavailable = tokio::time::timeout(RECOVERY_LIMIT, unavailable).await;
        assert_eq!(unavailable, Ok(None), "{direction:?}");
        completes("Redis responds", client.redis.wait_until_available()).await;
        assert!(client.redis.connection() > seen);
        client.redis.shutdown().await;
    }
}

#[tokio::test]
async fn silent_network_ends_by_itself() {
    let (_server, proxy, url) = behind_proxy().await;
    let client = Client::connected(&url).await;
    // Shorter and longer than the silence after which a connection is replaced.
    for silence in [100, 700, 1_500, 3_000].map(Duration::from_millis) {
        proxy.hold();
        assert!(client.identity().await.is_err());
        tokio::time::sleep(silence).await;
        proxy.forward();
        client.recovers().await;
    }
    client.redis.shutdown().await;
}

#[tokio::test]
async fn calls_fail_at_once_while_the_connection_is_silent() {
    let (_server, proxy, url) = behind_proxy().await;
    let client = Client::connected(&url).await;
    client.recovers().await;
    proxy.hold();
    assert_eq!(client.identity().await, Err(RedisError::NoReply));
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(client.identity().await, Err(RedisError::Unavailable));
    }
    // Calls that were sent would take 40 s.
    assert!(began.elapsed() < Duration::from_secs(10));
    proxy.forward();
    client.recovers().await;
    client.redis.shutdown().await;
}

#[tokio::test]
async fn slow_calls_fail_alone() {
    let server = RedisServer::start(&[]).await;
    // A limit that replies of a busy machine do not exceed.
    let limit = Duration::from_secs(1);
    let settings = RedisSettings {
        call_timeout: limit,
        ..RedisSettings::default()
    };
    let redis = Redis::connect(RedisTarget::from_url(&server.url()).unwrap(), settings);
    completes("Redis responds", redis.wait_until_available()).await;
    let loops = "local n = 0; for i = 1, 300000 do n = n + i end; return n";
    let busy = Script::new("busy", loops);
    // On a busy machine, most calls take longer than their computation.
    let mut shortest = Duration::MAX;
    for _ in 0..20 {
        let began = Instant::now();
        redis.run(&busy, "key", &[]).await.unwrap();
        shortest = shortest.min(began.elapsed());
    }
    let seen = redis.connection();
    // Redis executes them one after the other, and replies to each.
    let count = 3 * limit.as_micros() / shortest.as_micros();
    let calls = (0..count).map(|_| redis.run(&busy, "key", &[]));
    let results = join_all(calls).await;
    assert!(
        results.contains(&Err(RedisError::NoReply)),
        "some calls are late"
    );
    assert!(!results.contains(&Err(RedisError::Unavailable)));
    assert_eq!(redis.connection(), seen, "the circuit breaker stays closed");
    redis.shutdown().await;
}

#[tokio::test]
async fn replaced_connections_are_closed() {
    let (server, proxy, url) = behind_proxy().await;
    let client = Client::connected(&url).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    client.recovers().await;
    let before = tasks();
    for round in 0..20 {
        let seen = client.redis.connection();
        if round % 2 == 0 {
            server.call(&["CLIENT", "KILL", "TYPE", "NORMAL"]).await;
        } else {
            proxy.close();
        }
        completes("the end is detected", client.redis.connection_changed(seen)).await;
        client.recovers().await;
    }
    eventually("one connection is open", async || {
        proxy.open_connections() == 1
    })
    .await;
    eventually("no task is left", async || tasks() <= before).await;
    client.redis.shutdown().await;
    eventually("no connection is open", async || {
        proxy.open_connections() == 0
    })
    .await;
}

/// A proxy that refuses connections, then one that accepts and never replies.
#[tokio::test]
async fn unreachable_server_is_connected_to_when_it_responds() {
    let (_server, proxy, url) = behind_proxy().await;
    proxy.refuse();
    let client = Client::new(&url);
    assert_eq!(client.identity().await, Err(RedisError::Unavailable));
    tokio::time::sleep(Duration::from_millis(500)).await;
    proxy.hold();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(client.identity().await, Err(RedisError::Unavailable));
    proxy.forward();
    client.recovers().await;
    client.redis.shutdown().await;
    let unused = TcpProxy::start(([127, 0, 0, 1], 1).into()).await;
    let client = Client::new(&format!("redis://{}/0", unused.address()));
    assert_eq!(client.identity().await, Err(RedisError::Unavailable));
    client.redis.shutdown().await;
}
