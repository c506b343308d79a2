//! Servers that reply with an error that another connection may cure.

use conversation_memory::redis::Script;
use test_support::{eventually, redis_server::RedisServer};

use crate::{Client, behind_proxy};

#[tokio::test]
async fn loading_server_is_used_when_it_has_loaded() {
    let mut server = RedisServer::start(&[]).await;
    let client = Client::connected(&server.url()).await;
    client.recovers().await;
    server.restart_with_slow_load(1_000).await;
    client.recovers().await;
    let count = Script::new("count", "return redis.call('DBSIZE')");
    let keys = client.redis.run(&count, "key", &[]).await.unwrap();
    assert_eq!(keys.integer().unwrap(), 1_000, "all data is loaded");
    client.redis.shutdown().await;
}

#[tokio::test]
async fn connection_that_is_reset_while_calls_are_outstanding_is_replaced() {
    let (server, proxy, url) = behind_proxy().await;
    let client = Client::connected(&url).await;
    for _ in 0..5 {
        client.recovers().await;
        server.freeze();
        let (outstanding, ()) = tokio::join!(client.identity(), async {
            tokio::task::yield_now().await;
            proxy.close();
        });
        assert!(outstanding.is_err());
        server.thaw();
        client.recovers().await;
    }
    eventually("one connection is open", async || {
        proxy.open_connections() == 1
    })
    .await;
    client.redis.shutdown().await;
}
