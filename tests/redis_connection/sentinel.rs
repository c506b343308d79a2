//! Connections whose master Sentinel replaces.

use test_support::{eventually, redis_server::call, sentinel_group::SentinelGroup};

use crate::Client;

#[tokio::test]
async fn hung_master_is_left_and_not_used_again_when_it_resumes() {
    let group = SentinelGroup::start(1, "1").await;
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
        // The server closes its connections when it changes its role.
        info.is_ok_and(|info| info.contains("role:slave"))
    })
    .await;
    assert_eq!(client.recovers().await, second);
    client.redis.shutdown().await;
}

#[tokio::test]
async fn master_is_left_when_the_sentinels_name_another() {
    let group = SentinelGroup::start(1, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    // The old master works, and its connections are not closed at once.
    group.fail_over(0).await;
    client.uses_other_than(&first).await;
    client.redis.shutdown().await;
}

#[tokio::test]
async fn killed_master_is_replaced_while_a_sentinel_is_frozen_and_another_one_is_dead() {
    let mut group = SentinelGroup::start(3, "1").await;
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
async fn sentinels_that_are_not_configured_are_asked_when_the_configured_one_has_failed() {
    let mut group = SentinelGroup::start(3, "1").await;
    let client = Client::connected(&group.url_of(1)).await;
    let first = client.recovers().await;
    group.sentinels[0].kill();
    group.main.kill();
    group.failed_over(2).await;
    assert_ne!(client.recovers().await, first);
    client.redis.shutdown().await;
}

#[tokio::test]
async fn sentinel_that_was_separated_from_the_others_is_outvoted() {
    let group = SentinelGroup::start(3, "1").await;
    let client = Client::connected(&group.url()).await;
    let first = client.recovers().await;
    // The frozen sentinel does not learn that the replica was promoted.
    group.sentinels[0].freeze();
    group.fail_over(1).await;
    client.uses_other_than(&first).await;
    group.sentinels[0].thaw();
    for _ in 0..200 {
        if let Ok(identity) = client.identity().await {
            assert_ne!(identity, first);
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    client.redis.shutdown().await;
}
