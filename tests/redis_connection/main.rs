//! The connection to Redis while servers are silent, frozen, restarted, promoted and replaced: the
//! client recovers by itself, and uses only a master, whose history it names in every script.

mod cluster;
mod faults;
mod identity;
mod sentinel;
mod silence;

use std::time::{Duration, Instant};

use conversation_memory::redis::{Redis, RedisError, Reply, Script};
use test_support::{
    completes, eventually,
    redis_server::{RedisServer, connect},
    tcp_proxy::TcpProxy,
};

/// Upper bound that separates "recovers" from "never recovers" on a busy machine. Without one it
/// takes two seconds.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);

/// Client with the settings of a sidecar, and the script that it runs.
struct Client {
    redis: Redis,
    identity: Script,
}

impl Client {
    fn new(url: &str) -> Self {
        Self {
            redis: connect(url, ""),
            identity: Script::new("identity", "return server"),
        }
    }

    async fn connected(url: &str) -> Self {
        let client = Self::new(url);
        completes("Redis responds", client.redis.wait_until_available()).await;
        client
    }

    /// Returns the identity of the server's history, as scripts see it.
    async fn identity(&self) -> Result<String, RedisError> {
        let reply: Reply = self.redis.run(&self.identity, "key", &[]).await?;
        Ok(reply.text()?.to_owned())
    }

    /// Waits until scripts see another identity than `former`.
    async fn uses_other_than(&self, former: &str) {
        eventually("another server or history is used", async || {
            self.identity()
                .await
                .is_ok_and(|identity| identity != former)
        })
        .await;
    }

    /// Calls without a pause until a call succeeds, and returns its result.
    async fn recovers(&self) -> String {
        let failed = Instant::now();
        loop {
            if let Ok(identity) = self.identity().await {
                return identity;
            }
            assert!(failed.elapsed() < RECOVERY_LIMIT, "Redis stays unavailable");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Server with a proxy in front of it.
async fn behind_proxy() -> (RedisServer, TcpProxy, String) {
    let server = RedisServer::start(&[]).await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let url = format!("redis://{}/0", proxy.address());
    (server, proxy, url)
}
