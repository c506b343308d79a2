//! Redis master with a replica, monitored by sentinels.

use crate::{
    eventually,
    redis_server::{RedisServer, repeat_request},
};

/// Servers that end when the value is dropped.
#[derive(Debug)]
pub struct SentinelGroup {
    pub main: RedisServer,
    pub replica: RedisServer,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    /// Starts the servers, and waits until they know each other. `quorum` is the number of sentinels
    /// that must agree that the master is down.
    pub async fn start(sentinels: usize, quorum: &str) -> Self {
        let main = RedisServer::start(&["--repl-diskless-sync-delay", "0"]).await;
        let port = main.port().to_string();
        // Without a delay, the replica is ready at once.
        let no_delay = ["--repl-diskless-sync-delay", "0"];
        let options = [&["--replicaof", "127.0.0.1", &port][..], &no_delay].concat();
        let replica = RedisServer::start(&options).await;
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

    /// URL with which sidecars find the master.
    pub fn url(&self) -> String {
        self.url_of(self.sentinels.len())
    }

    /// Returns a URL that names only the first sentinels.
    pub fn url_of(&self, count: usize) -> String {
        let hosts: Vec<String> = self.sentinels[..count]
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port()))
            .collect();
        let (first, others) = hosts.split_first().unwrap();
        let nodes = others
            .iter()
            .fold(String::new(), |nodes, host| nodes + "&node=" + host);
        format!("redis-sentinel://{first}?sentinelServiceName=main{nodes}")
    }

    /// Promotes the replica, although the master works, and waits until the sentinel names it. A sentinel
    /// gives up a failover that takes too long; then it is requested again.
    pub async fn fail_over(&self, sentinel: usize) {
        let server = &self.sentinels[sentinel];
        repeat_request(
            "the replica is promoted on request",
            async || {
                let _ = server.try_call(&["SENTINEL", "FAILOVER", "main"]).await;
            },
            async || self.names(sentinel, &self.replica).await,
        )
        .await;
    }

    /// Sets an option of the group on all sentinels.
    pub async fn set(&self, option: &str, value: &str) {
        for sentinel in &self.sentinels {
            let set = ["SENTINEL", "SET", "main", option, value];
            assert_eq!(sentinel.call(&set).await, "OK");
        }
    }

    /// Waits until a sentinel names the replica as the master.
    pub async fn failed_over(&self, sentinel: usize) {
        self.failed_over_to(&self.replica, sentinel).await;
    }

    /// Waits until a sentinel names a server as the master.
    pub async fn failed_over_to(&self, server: &RedisServer, sentinel: usize) {
        eventually("the server is promoted", async || {
            self.names(sentinel, server).await
        })
        .await;
    }

    async fn names(&self, sentinel: usize, server: &RedisServer) -> bool {
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
        let master = self.sentinels[sentinel].call(&question).await;
        master.contains(&server.port().to_string())
    }
}
