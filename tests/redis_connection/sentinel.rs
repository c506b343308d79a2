//! Failovers by Sentinel.

use test_support::{
    eventually,
    redis_server::{RedisServer, call},
};

use crate::Client;

/// Master with a replica, and sentinels.
struct Group {
    main: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Group {
    async fn start(sentinels: usize, quorum: &str) -> Self {
        let main = RedisServer::start(&[]).await;
        let port = main.port().to_string();
        let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
        eventually("the replica is linked", async || {
            let info = replica.call(&["INFO", "replication"]).await;
            info.contains("master_link_status:up")
        })
        .await;
        let mut group = Self {
            main,
            replica,
            sentinels: Vec::new(),
        };
        for _ in 0..sentinels {
            let sentinel = RedisServer::start_sentinel().await;
            let monitor = ["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, quorum];
            sentinel.call(&monitor).await;
            for (option, value) in [
                ("down-after-milliseconds", "500"),
                ("failover-timeout", "3000"),
            ] {
                let set = ["SENTINEL", "SET", "main", option, value];
                sentinel.call(&set).await;
            }
            group.sentinels.push(sentinel);
        }
        for sentinel in &group.sentinels {
            eventually("the sentinel knows the group", async || {
                let state = sentinel.call(&["SENTINEL", "MASTER", "main"]).await;
                let has = |field: &str, value: usize| {
                    let text = value.to_string();
                    let expected = format!("{field}\r\n${}\r\n{text}\r\n", text.len());
                    state.contains(&expected)
                };
                has("num-slaves", 1) && has("num-other-sentinels", sentinels - 1)
            })
            .await;
        }
        group
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect();
        let (first, others) = hosts.split_first().unwrap();
        let nodes: String = others.iter().map(|host| format!("&node={host}")).collect();
        format!("redis-sentinel://{first}?sentinelServiceName=main{nodes}")
    }

    /// Promotes the replica, although the master works.
    async fn start_failover(&self, sentinel: usize) {
        eventually("the sentinel begins a failover", async || {
            let failover = ["SENTINEL", "FAILOVER", "main"];
            self.sentinels[sentinel].call(&failover).await == "OK"
        })
        .await;
    }

    /// Waits until a sentinel names the replica as the master.
    async fn failed_over(&self, sentinel: usize) {
        let port = self.replica.port().to_string();
        eventually("the replica is promoted", async || {
            let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
            self.sentinels[sentinel]
                .call(&question)
                .await
                .contains(&port)
        })
        .await;
    }
}

#[tokio::test]
async fn hung_master_is_left_and_not_used_again_when_it_resumes() {
    let group = Group::start(1, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    group.main.freeze();
    assert!(client.identity().await.is_err());
    group.failed_over(0).await;
    let second = client.recovers().await;
    assert_ne!(second, first);
    group.main.thaw();
    eventually("the old master is a replica", async || {
        // It must not be used in the meantime, although it still regards itself as the master.
        if let Ok(identity) = client.identity().await {
            assert_eq!(identity, second);
        }
        let info = call(&group.main.url(), &["INFO", "replication"]).await;
        info.unwrap().contains("role:slave")
    })
    .await;
    assert_eq!(client.recovers().await, second);
    client.redis.shutdown().await;
}

#[tokio::test]
async fn master_is_left_when_the_sentinels_name_another() {
    let group = Group::start(1, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    // The old master works, and its connections are not closed at once.
    group.start_failover(0).await;
    group.failed_over(0).await;
    eventually("the new master is used", async || {
        client
            .identity()
            .await
            .is_ok_and(|identity| identity != first)
    })
    .await;
    client.redis.shutdown().await;
}

#[tokio::test]
async fn killed_master_is_replaced_while_a_sentinel_is_frozen_and_another_one_is_dead() {
    let mut group = Group::start(3, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    group.main.kill();
    group.failed_over(2).await;
    group.sentinels[0].freeze();
    group.sentinels[1].kill();
    assert_ne!(client.recovers().await, first);
    // A client that starts now is not held up either.
    let later = Client::connected(&group.url()).await;
    assert_ne!(later.recovers().await, first);
    client.redis.shutdown().await;
    later.redis.shutdown().await;
}

#[tokio::test]
async fn sentinel_that_was_separated_from_the_others_is_outvoted() {
    let group = Group::start(3, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    // The frozen sentinel does not learn that the replica was promoted.
    group.sentinels[0].freeze();
    group.start_failover(1).await;
    group.failed_over(1).await;
    eventually("the new master is used", async || {
        client
            .identity()
            .await
            .is_ok_and(|identity| identity != first)
    })
    .await;
    group.sentinels[0].thaw();
    for _ in 0..200 {
        if let Ok(identity) = client.identity().await {
            assert_ne!(identity, first);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    client.redis.shutdown().await;
}
