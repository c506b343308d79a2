//! Standbys that differ: which of several is read, and how far away or wrong one may be.

use std::{net::SocketAddr, time::Duration};

use conversation_memory::{
    domain::ConversationRef,
    store::{
        MinState, Redaction, Store, StoreError,
        postgres::{PostgresStore, ReplicaSettings},
    },
};
use sqlx::query_scalar;
use test_support::{
    eventually, pgbouncer::PgBouncer, postgres_server::PostgresServer, stopwatch::Stopwatch,
    store_fixture::turn, tcp_proxy::TcpProxy,
};
use tokio::time::sleep;

use crate::{
    branches::branch_of,
    replica::{
        NEVER, NOTICED, Replicated, UNLIMITED, conversation, from_standby, has_messages, is_listed,
        lagging, options, owner, texts, with_replica,
    },
    search::query,
};

fn address(server: &PostgresServer) -> SocketAddr {
    ([127, 0, 0, 1], server.port()).into()
}

fn url_of(proxy: &TcpProxy) -> String {
    format!("postgres://postgres@{}/postgres", proxy.address())
}

/// Servers after a failover that has lost transactions.
struct FailedOver {
    primary: PostgresServer,
    /// Follows the new primary.
    follower: PostgresServer,
    /// Has the lost transactions.
    stale: PostgresServer,
    /// Has a message `kept`, and on the stale standby others.
    conversation: ConversationRef,
}

impl FailedOver {
    async fn new() -> Self {
        let mut former = PostgresServer::start().await;
        let primary = former.start_standby().await;
        let stale = former.start_standby().await;
        let store = PostgresStore::new(options(&former.url()), 2);
        store.prepare(true).await.unwrap();
        // A store with a replica used the former primary.
        let before = with_replica(&former, &[&stale.url()], lagging(UNLIMITED)).await;
        let conversation = conversation(&store, &["kept"]).await;
        eventually("the standby is used", async || {
            let (_, state) = texts(&before, MinState::ANY, &conversation).await.unwrap();
            state != MinState::Latest
        })
        .await;
        eventually("both standbys have the conversation", async || {
            has_messages(&primary, 1).await && has_messages(&stale, 1).await
        })
        .await;
        for statement in [
            "ALTER SYSTEM SET primary_conninfo = ''",
            "SELECT pg_reload_conf()",
        ] {
            primary.execute(statement).await;
        }
        eventually("one of them receives no more", async || {
            let mut standby = primary.connect().await;
            let receivers = query_scalar("SELECT count(*) FROM pg_stat_wal_receiver");
            let receivers: i64 = receivers.fetch_one(&mut standby).await.unwrap();
            receivers == 0
        })
        .await;
        store.append(&turn(&conversation, &["lost"])).await.unwrap();
        eventually("the other one has the rest", async || {
            has_messages(&stale, 2).await
        })
        .await;
        store.close().await;
        before.close().await;
        former.kill();
        primary.promote().await;
        let follower = primary.start_standby().await;
        // The new primary passes the position of the stale standby.
        let store = PostgresStore::new(options(&primary.url()), 2);
        store.prepare(false).await.unwrap();
        for _ in 0..20 {
            store
                .append(&turn(&conversation, &["after"]))
                .await
                .unwrap();
        }
        store.close().await;
        Self {
            primary,
            follower,
            stale,
            conversation,
        }
    }

    /// Reads from the store until it has used the follower, and never what was lost.
    async fn expect_use_of_follower(&self, store: &PostgresStore) {
        let mut replica_reads = 0;
        eventually("reads use the standby that follows", async || {
            let (shown, state) = texts(store, MinState::ANY, &self.conversation)
                .await
                .unwrap();
            assert!(!shown.contains(&"lost".to_owned()), "{shown:?}");
            assert!(shown.contains(&"after".to_owned()), "{shown:?}");
            replica_reads += u32::from(state != MinState::Latest);
            replica_reads == 100
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_transactions_of_one_standby_behind_an_address_are_not_read() {
    let servers = FailedOver::new().await;
    let targets = vec![address(&servers.stale), address(&servers.follower)];
    let balancer = TcpProxy::balancing(targets).await;
    let url = url_of(&balancer);
    let store = with_replica(&servers.primary, &[&url], lagging(UNLIMITED)).await;
    servers.expect_use_of_follower(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_lost_transactions_is_replaced_by_the_next() {
    let servers = FailedOver::new().await;
    let urls = [servers.stale.url(), servers.follower.url()];
    let urls = urls.each_ref().map(String::as_str);
    let store = with_replica(&servers.primary, &urls, lagging(UNLIMITED)).await;
    servers.expect_use_of_follower(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_begins_to_lag_is_replaced_by_the_next() {
    let max_lag = Duration::from_millis(300);
    let primary = PostgresServer::start().await;
    let standbys = [primary.start_standby().await, primary.start_standby().await];
    let urls = standbys.each_ref().map(PostgresServer::url);
    let urls = urls.each_ref().map(String::as_str);
    let other = PostgresStore::new(options(&primary.url()), 2);
    other.prepare(true).await.unwrap();
    let store = with_replica(&primary, &urls, lagging(max_lag)).await;
    let written = conversation(&other, &["first"]).await;
    for lagging in &standbys {
        lagging.execute("SELECT pg_wal_replay_pause()").await;
        let mut reads = 0;
        eventually("reads use the standby that does not lag", async || {
            other.append(&turn(&written, &["next"])).await.unwrap();
            sleep(max_lag).await;
            let (_, state) = texts(&store, MinState::ANY, &written).await.unwrap();
            reads += u32::from(state != MinState::Latest);
            reads == 5
        })
        .await;
        lagging.execute("SELECT pg_wal_replay_resume()").await;
    }
}

/// The connection of the standby is longer than the one of the primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_far_away_is_used() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    let proxy = TcpProxy::start(address(&standby)).await;
    // The delay applies to each direction, so that a round trip takes twice as long.
    proxy.delay(Duration::from_millis(75));
    let url = url_of(&proxy);
    let servers = Replicated::with_read_urls(primary, standby, &[&url], lagging(UNLIMITED)).await;
    let marker = servers.pause().await;
    // Some find no connection until enough are open.
    let mut reads = 0;
    eventually("reads use the standby", async || {
        reads += u32::from(is_listed(&servers.store, &marker).await);
        reads == 20
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_ends_soon_when_the_standby_stops_responding() {
    for is_pooled in [false, true] {
        let primary = PostgresServer::start().await;
        let standby = primary.start_standby().await;
        let pooler = PgBouncer::start(standby.port(), "transaction", 4).await;
        let url = if is_pooled {
            pooler.url()
        } else {
            standby.url()
        };
        let servers =
            Replicated::with_read_urls(primary, standby, &[&url], lagging(UNLIMITED)).await;
        let kept = conversation(&servers.other, &["text"]).await;
        servers.pause().await;
        servers.resume().await;
        servers.slow_searches_down().await;
        let searched = query(owner(&kept), "text");
        let freeze = async {
            eventually("the standby searches", async || {
                servers.sessions_of_standby("wait_event = 'PgSleep'").await > 0
            })
            .await;
            servers.standby.freeze();
            Stopwatch::start()
        };
        let (found, frozen) = tokio::join!(servers.store.search(&searched), freeze);
        let elapsed = frozen.elapsed();
        servers.standby.thaw();
        let found = found.unwrap();
        assert_eq!((found.hits.len(), found.state), (1, MinState::Latest));
        assert!(elapsed < NOTICED, "pooled {is_pooled}: {elapsed:?}");
    }
}

/// The server of `DATABASE_URL` is given as its own standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_that_lasts_is_checked_less_and_less_often() {
    const READS: u32 = 200;
    let primary = PostgresServer::start_logging().await;
    let max_lag = Duration::from_millis(200);
    let store = with_replica(&primary, &[&primary.url()], lagging(max_lag)).await;
    let read = conversation(&store, &["one"]).await;
    for _ in 0..READS {
        texts(&store, MinState::ANY, &read).await.unwrap();
        sleep(Duration::from_millis(25)).await;
    }
    let statements = primary.statements().await;
    let checks = statements
        .iter()
        .filter(|statement| statement.contains("missing_settings"))
        .count();
    assert!(checks < 25, "{checks} connections were checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_read_at_once_in_all_conversations_that_they_change() {
    let settings = ReplicaSettings {
        max_lag: UNLIMITED,
        reads_own_writes: true,
    };
    let servers = Replicated::start(settings).await;
    let Replicated { store, other, .. } = &servers;
    let parent = conversation(other, &["secret", "two"]).await;
    let branch = branch_of(&parent, 1);
    other.branch(&branch).await.unwrap();
    let branch = ConversationRef {
        id: branch.id,
        user_id: None,
    };
    let written = conversation(other, &["written"]).await;
    let marker = servers.pause().await;
    from_standby(async || {
        let (shown, state) = texts(store, MinState::ANY, &branch).await?;
        assert_eq!(shown, ["secret"]);
        (state != MinState::Latest)
            .then_some(())
            .ok_or(StoreError::NotFound)
    })
    .await;
    let redaction = Redaction {
        conversation: parent.clone(),
        seqs: vec![1],
        announced: Vec::new(),
        invalidation: NEVER,
    };
    store.redact(&redaction).await.unwrap();
    let (redacted, state) = texts(store, MinState::ANY, &branch).await.unwrap();
    assert!(!redacted.contains(&"secret".to_owned()), "{redacted:?}");
    assert_eq!(state, MinState::Latest);
    // A write whose user is not known concerns its conversation, and the lists of all users.
    let anonymous = ConversationRef {
        id: written.id,
        user_id: None,
    };
    eventually("the lists come from the standby", async || {
        is_listed(store, &marker).await
    })
    .await;
    store.delete(&anonymous, NEVER).await.unwrap();
    let (shown, state) = from_standby(async || texts(store, MinState::ANY, &marker).await).await;
    assert_eq!(shown, ["marker"]);
    assert_ne!(state, MinState::Latest);
    assert!(!is_listed(store, &marker).await);
    assert!(!is_listed(store, &written).await);
}
