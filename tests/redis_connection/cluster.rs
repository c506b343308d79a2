//! Clusters, whose identity is that of all masters.

use conversation_memory::redis::Script;
use test_support::{eventually, redis_server::RedisServer};

use crate::Client;

const OPTIONS: [&str; 8] = [
    "--cluster-enabled",
    "yes",
    "--cluster-node-timeout",
    "2000",
    "--cluster-require-full-coverage",
    "no",
    "--cluster-allow-reads-when-down",
    "yes",
];

/// Starts a cluster of two masters.
async fn start() -> Vec<RedisServer> {
    let mut servers = Vec::new();
    for (from, to) in [("0", "8191"), ("8192", "16383")] {
        let server = RedisServer::start(&OPTIONS).await;
        server.call(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        servers.push(server);
    }
    let port = servers[1].port().to_string();
    servers[0]
        .call(&["CLUSTER", "MEET", "127.0.0.1", &port])
        .await;
    for server in &servers {
        eventually("the cluster is up", async || is_up(server).await).await;
    }
    servers
}

async fn is_up(server: &RedisServer) -> bool {
    let info = server.call(&["CLUSTER", "INFO"]).await;
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
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
        eventually("the cluster is up", async || is_up(&servers[node]).await).await;
        eventually("the new history is named", async || {
            client
                .identity()
                .await
                .is_ok_and(|identity| identity != before)
        })
        .await;
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
