//! Identity of a server's history.

use std::time::Duration;

use conversation_memory::redis::{ErrorReply, RedisError, Script};
use test_support::{
    eventually,
    redis_server::{RedisServer, connect},
};

use crate::{Client, RECOVERY_LIMIT};

#[tokio::test]
async fn identity_is_that_of_the_process_and_its_history() {
    let mut server = RedisServer::start(&[]).await;
    let client = Client::connected(&server.url()).await;
    let first = client.recovers().await;
    let info = server.call(&["INFO"]).await;
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(
        first,
        format!("{}:{}", field("run_id"), field("master_replid"))
    );
    // Another client, and another connection, name the same history.
    assert_eq!(
        Client::connected(&server.url()).await.recovers().await,
        first
    );
    server.call(&["CLIENT", "KILL", "TYPE", "NORMAL"]).await;
    eventually("the connection is replaced", async || {
        client.redis.connection().is_some_and(|number| number > 0)
    })
    .await;
    assert_eq!(client.recovers().await, first);

    server.kill();
    server.run().await;
    assert_ne!(client.recovers().await, first);
    client.redis.shutdown().await;
}

#[tokio::test]
async fn history_that_changes_during_a_connection_is_noticed() {
    let server = RedisServer::start(&[]).await;
    let client = Client::connected(&server.url()).await;
    let first = client.recovers().await;
    server.call(&["REPLICAOF", "127.0.0.1", "1"]).await;
    server.call(&["REPLICAOF", "NO", "ONE"]).await;
    // Known scripts are served until the next check; others are not loaded under the old name.
    let other = Script::new("other", "return {server}");
    let answer = client.redis.run(&other, "key", &[]).await;
    assert!(answer.is_err(), "{answer:?}");
    client.uses_other_than(&first).await;
    client.redis.shutdown().await;
}

#[tokio::test]
async fn replica_is_not_used() {
    let main = RedisServer::start(&[]).await;
    let port = main.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]).await;
    let client = Client::new(&replica.url());
    let waited = client.redis.wait_until_available();
    let waited = tokio::time::timeout(Duration::from_secs(2), waited).await;
    assert!(waited.is_err(), "a replica is unavailable");
    replica.call(&["REPLICAOF", "NO", "ONE"]).await;
    client.recovers().await;
    // The master becomes a replica: it refuses writes, and reads must not be served either.
    replica.call(&["REPLICAOF", "127.0.0.1", &port]).await;
    eventually("the replica is left", async || !client.redis.is_available()).await;
    let later = tokio::time::timeout(Duration::from_secs(2), client.redis.wait_until_available());
    assert!(later.await.is_err(), "a replica is unavailable");
    client.redis.shutdown().await;
}

#[tokio::test]
async fn user_without_permission_for_info_gets_a_new_identity_on_each_connection() {
    let server = RedisServer::start(&[]).await;
    server
        .call(&[
            "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-info", "-role",
        ])
        .await;
    let url = server.url().replace("redis://", "redis://app:secret@");
    let client = Client::connected(&url).await;
    let first = client.recovers().await;
    assert!(first.starts_with("unidentified:"), "{first}");
    assert_eq!(client.recovers().await, first);
    assert_ne!(Client::connected(&url).await.recovers().await, first);
    let seen = client.redis.connection();
    server.call(&["CLIENT", "KILL", "USER", "app"]).await;
    let replaced = client.redis.connection_changed(seen);
    assert!(tokio::time::timeout(RECOVERY_LIMIT, replaced).await.is_ok());
    assert_ne!(client.recovers().await, first);
    // The connection is checked without INFO.
    server.freeze();
    eventually("the silence is noticed", async || {
        !client.redis.is_available()
    })
    .await;
    server.thaw();
    client.recovers().await;
    client.redis.shutdown().await;
}

#[tokio::test]
async fn user_without_permission_for_scripts_gets_an_error() {
    let server = RedisServer::start(&[]).await;
    server
        .call(&[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">secret",
            "~*",
            "+@all",
            "-@scripting",
        ])
        .await;
    let url = server.url().replace("redis://", "redis://app:secret@");
    let redis = connect(&url, "");
    redis.wait_until_available().await;
    let answer = redis.run(&Script::new("one", "return 1"), "key", &[]).await;
    let denied = RedisError::ErrorReply(ErrorReply::NotAuthorized);
    assert_eq!(answer, Err(denied));
    redis.shutdown().await;
}
