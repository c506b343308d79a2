//! Clusters, whose identity is that of all masters.

use conversation_memory::redis::Script;
use test_support::{eventually, redis_server::RedisServer};

use crate::Client;

/// Starts a cluster of two masters, each of which works without the other one.
async fn start() -> Vec<RedisServer> {
    RedisServer::start_cluster(&[
        "--cluster-require-full-coverage",
        "no",
        "--cluster-allow-reads-when-down",
        "yes",
    ])
    .await
}

fn url(server: &RedisServer) -> String {
    server.url().replace("redis://", "redis-cluster://")
}

#[tokio::test]
async fn restart_of_a_node_changes_the_identity() {
    let mut servers = start().await;
    let client = Client::connected(&url(&servers[0])).await;
    let first = client.recovers().await;
    assert!(first.starts_with("cluster:"), "{first}");
    assert_eq!(
        Client::connected(&url(&servers[1])).await.recovers().await,
        first
    );
    for node in [1, 0] {
        let before = client.recovers().await;
        servers[node].kill();
        servers[node].run().await;
        servers[node].joins_cluster().await;
        client.uses_other_than(&before).await;
    }
    client.redis.shutdown().await;
}

#[tokio::test]
async fn cluster_is_used_if_the_url_names_one_of_its_nodes_as_a_single_server() {
    let servers = start().await;
    let client = Client::connected(&servers[0].url()).await;
    let identity = client.recovers().await;
    assert!(identity.starts_with("cluster:"), "{identity}");
    let set = Script::new("set", "return redis.call('SET', KEYS[1], ARGV[1])");
    for number in 0..16 {
        let key = format!("key {number}");
        client.redis.run(&set, &key, &["x".into()]).await.unwrap();
    }
    client.redis.shutdown().await;
}

#[tokio::test]
async fn moved_slots_keep_the_identity() {
    let servers = start().await;
    let client = Client::connected(&url(&servers[0])).await;
    let first = client.recovers().await;
    let get = Script::new("get", "return redis.call('GET', KEYS[1]) or server");
    let key = "key";
    let slot = servers[0].call(&["CLUSTER", "KEYSLOT", key]).await;
    let target = servers[0].call(&["CLUSTER", "MYID"]).await;
    for server in servers.iter().rev() {
        let set = ["CLUSTER", "SETSLOT", &slot, "NODE", &target];
        assert_eq!(server.call(&set).await, "OK");
    }
    eventually("the moved slot is served", async || {
        let answer = client.redis.run(&get, key, &[]).await;
        answer.is_ok_and(|answer| answer.text() == Ok(first.as_str()))
    })
    .await;
    assert_eq!(client.recovers().await, first);
    client.redis.shutdown().await;
}
