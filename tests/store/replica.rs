//! Reads from a standby: what they may show, and what happens if the standby cannot be used.

use std::time::Duration;

use conversation_memory::{
    domain::{ConversationRef, UserId},
    store::{
        Bound, ConversationQuery, MinState, Store, StoreError,
        postgres::{Pooler, PostgresStore, ReplicaSettings},
    },
    text_analysis::Languages,
};
use sqlx::{AssertSqlSafe, postgres::PgConnectOptions, query_scalar, raw_sql};
use test_support::{
    eventually,
    pgbouncer::PgBouncer,
    postgres_server::PostgresServer,
    stopwatch::Stopwatch,
    store_fixture::{at, new_conversation, owned_ref, truncation, turn, user},
    tcp_proxy::TcpProxy,
    within_progress,
};
use tokio::time::sleep;

use crate::search::query;

/// Lag that no test reaches, so that a standby whose replay is paused remains usable.
pub(crate) const UNLIMITED: Duration = Duration::from_hours(1);

/// Time in which a read notices that the standby does not respond, see `postgres_servers`.
pub(crate) const NOTICED: Duration = Duration::from_millis(3_500);

/// Primary and standby, a store that reads from both, and one that uses the primary only, as another
/// sidecar may.
pub(crate) struct Replicated {
    pub(crate) primary: PostgresServer,
    pub(crate) standby: PostgresServer,
    pub(crate) store: PostgresStore,
    pub(crate) other: PostgresStore,
}

impl Replicated {
    pub(crate) async fn start(settings: ReplicaSettings) -> Self {
        let primary = PostgresServer::start().await;
        let standby = primary.start_standby().await;
        let url = standby.url();
        Self::with_read_urls(primary, standby, &[&url], settings).await
    }

    pub(crate) async fn with_read_urls(
        primary: PostgresServer,
        standby: PostgresServer,
        urls: &[&str],
        settings: ReplicaSettings,
    ) -> Self {
        let other = PostgresStore::new(options(&primary.url()), 4);
        other.prepare(true).await.unwrap();
        let store = with_replica(&primary, urls, settings).await;
        Self {
            primary,
            standby,
            store,
            other,
        }
    }

    /// Creates a conversation that was just deleted, and which the standby still has: its replay is
    /// paused. A read shows it only if it comes from the standby.
    pub(crate) async fn pause(&self) -> ConversationRef {
        let mut marker = None;
        eventually("reads use the standby", async || {
            self.resume().await;
            let conversation = conversation(&self.other, &["marker"]).await;
            self.catch_up().await;
            self.standby.execute("SELECT pg_wal_replay_pause()").await;
            let deleted = self.other.delete(&conversation, NEVER).await;
            deleted.unwrap();
            let is_shown = is_listed(&self.store, &conversation).await;
            marker = Some(conversation);
            is_shown
        })
        .await;
        marker.unwrap()
    }

    pub(crate) async fn resume(&self) {
        self.standby.execute("SELECT pg_wal_replay_resume()").await;
    }

    /// Removes rows of a conversation with these texts, which the standby has to remove as well.
    async fn remove_rows(&self, texts: &[&str]) {
        let removed = conversation(&self.other, texts).await;
        self.other.delete(&removed, NEVER).await.unwrap();
        self.primary.execute("VACUUM messages").await;
        self.primary.execute("VACUUM message_documents").await;
        self.catch_up().await;
    }

    /// Number of reads that the standby has canceled because it had to remove rows.
    async fn conflicts(&self) -> i64 {
        let mut standby = self.standby.connect().await;
        query_scalar("SELECT sum(confl_snapshot)::bigint FROM pg_stat_database_conflicts")
            .fetch_one(&mut standby)
            .await
            .unwrap()
    }

    /// Makes the statements of searches on the standby exceed their time limit.
    pub(crate) async fn slow_searches_down(&self) {
        let function = "CREATE OR REPLACE FUNCTION searched_text(content text) RETURNS text \
             LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN \
                 IF pg_is_in_recovery() AND current_query() LIKE '%websearch_to_tsquery%' \
                 THEN PERFORM pg_sleep(10); END IF; \
                 RETURN content; \
             END $$";
        self.primary.execute(function).await;
        self.catch_up().await;
    }

    /// Number of sessions of the store on the standby that meet a condition.
    pub(crate) async fn sessions_of_standby(&self, condition: &str) -> i64 {
        let mut standby = self.standby.connect().await;
        let sessions = format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE application_name = 'conversation-memory' AND {condition}"
        );
        let sessions = query_scalar(AssertSqlSafe(sessions));
        sessions.fetch_one(&mut standby).await.unwrap()
    }

    /// Waits until the standby has applied what the primary has written.
    pub(crate) async fn catch_up(&self) {
        let mut primary = self.primary.connect().await;
        let position = query_scalar("SELECT pg_current_wal_flush_lsn()::text");
        let position: String = position.fetch_one(&mut primary).await.unwrap();
        let mut standby = self.standby.connect().await;
        eventually("the standby has caught up", async || {
            let applied = query_scalar("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn");
            let applied = applied.bind(&position).fetch_one(&mut standby).await;
            applied.unwrap()
        })
        .await;
    }
}

pub(crate) const NEVER: conversation_memory::store::Invalidation =
    conversation_memory::store::Invalidation::Never;

/// Settings of a store that does not distinguish its own writes.
pub(crate) const fn lagging(max_lag: Duration) -> ReplicaSettings {
    ReplicaSettings {
        max_lag,
        reads_own_writes: false,
    }
}

pub(crate) fn options(url: &str) -> PgConnectOptions {
    url.parse().unwrap()
}

pub(crate) async fn with_replica(
    primary: &PostgresServer,
    urls: &[&str],
    settings: ReplicaSettings,
) -> PostgresStore {
    let mut servers = urls.iter().map(|url| options(url));
    let first = servers.next().unwrap();
    let store = PostgresStore::new(options(&primary.url()), 8);
    let store = store.with_replica(first, servers.collect(), 8, Pooler::Detect, settings);
    store.prepare(true).await.unwrap();
    store
}

/// Creates a conversation with a turn of these texts.
pub(crate) async fn conversation(store: &PostgresStore, texts: &[&str]) -> ConversationRef {
    let new = new_conversation(&user());
    store.create(&new, at(0)).await.unwrap();
    let conversation = owned_ref(&new);
    store.append(&turn(&conversation, texts)).await.unwrap();
    conversation
}

fn list_of(user: &UserId) -> ConversationQuery {
    ConversationQuery {
        user_id: user.clone(),
        dept_id: None,
        after: None,
        state: MinState::ANY,
        limit: 10,
    }
}

pub(crate) fn owner(conversation: &ConversationRef) -> &UserId {
    conversation.user_id.as_ref().unwrap()
}

pub(crate) async fn is_listed(store: &PostgresStore, conversation: &ConversationRef) -> bool {
    let page = store.list(&list_of(owner(conversation))).await.unwrap();
    let mut listed = page.conversations.iter();
    listed.any(|listed| listed.id == conversation.id)
}

/// Texts of a conversation within the maximum lag, and the state that the next page needs.
pub(crate) async fn texts(
    store: &PostgresStore,
    state: MinState,
    conversation: &ConversationRef,
) -> Result<(Vec<String>, MinState), StoreError> {
    let read = store
        .messages_since(state, conversation, Bound::After(0), 1_000, false)
        .await;
    let (messages, state) = read?;
    let texts = messages.into_iter();
    let texts = texts.map(|message| message.content.into_string()).collect();
    Ok((texts, state))
}

/// Repeats a read of a marker until the standby serves it. A read that waits for the standby uses the
/// primary, which does not have the marker.
pub(crate) async fn from_standby<T>(read: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let mut shown = None;
    eventually("the standby is read", async || {
        shown = match read().await {
            Err(StoreError::NotFound) => None,
            read => Some(read.unwrap()),
        };
        shown.is_some()
    })
    .await;
    shown.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_may_lag_use_the_standby_and_no_others() {
    let servers = Replicated::start(lagging(UNLIMITED)).await;
    let marker = servers.pause().await;
    let store = &servers.store;
    let (shown, state) = from_standby(async || texts(store, MinState::ANY, &marker).await).await;
    assert_eq!(shown, ["marker"]);
    assert!(matches!(state, MinState::Position(1..)), "{state:?}");
    let marked = query(owner(&marker), "marker");
    from_standby(async || {
        let found = store.search(&marked).await?;
        // The primary finds nothing.
        (found.hits.len() == 1 && found.state != MinState::Latest)
            .then_some(())
            .ok_or(StoreError::NotFound)
    })
    .await;
    let (exported, mut snapshot) = from_standby(async || store.snapshot(&marker).await).await;
    assert_eq!(exported.id, marker.id);
    assert_eq!(snapshot.after(0, 10).await.unwrap().len(), 1);
    let misspelled = query(owner(&marker), "markre");
    let corrected = from_standby(async || {
        let corrected = store.correct(&misspelled).await?;
        corrected.ok_or(StoreError::NotFound)
    });
    assert_eq!(corrected.await, "marker");

    for state in [MinState::Latest, MinState::Position(u64::MAX >> 1)] {
        let read = texts(store, state, &marker).await;
        assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
    }
    let read = store.get(&marker).await;
    assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
    let read = store.newest(&marker, 10, false).await;
    assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
    let read = store.messages(&marker, Bound::After(0), 10, false).await;
    assert!(matches!(read, Err(StoreError::NotFound)), "{read:?}");
    // A write depends on the primary alone.
    let refused = store.append(&turn(&marker, &["late"])).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_read_at_once() {
    let settings = ReplicaSettings {
        max_lag: UNLIMITED,
        reads_own_writes: true,
    };
    let servers = Replicated::start(settings).await;
    let marker = servers.pause().await;
    let store = &servers.store;
    let mut own = new_conversation(owner(&marker));
    own.title = None;
    store.create(&own, at(1)).await.unwrap();
    let own = owned_ref(&own);
    store.append(&turn(&own, &["one", "two"])).await.unwrap();
    assert!(is_listed(store, &own).await);
    // The whole list comes from the primary.
    assert!(!is_listed(store, &marker).await);
    let (shown, state) = texts(store, MinState::ANY, &own).await.unwrap();
    assert_eq!(shown, ["one", "two"]);
    assert_eq!(state, MinState::Latest);
    store.truncate(&truncation(&own, 1)).await.unwrap();
    let (shown, _) = texts(store, MinState::ANY, &own).await.unwrap();
    assert_eq!(shown, ["one"]);
    let found = store.search(&query(owner(&own), "one")).await.unwrap();
    assert_eq!(found.hits.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_lag_by_no_more_than_the_maximum() {
    let max_lag = Duration::from_millis(300);
    let servers = Replicated::start(lagging(max_lag)).await;
    let Replicated { store, other, .. } = &servers;
    for round in 0..5 {
        let written = conversation(other, &["first"]).await;
        servers.catch_up().await;
        // The position of the primary becomes known.
        for _ in 0..20 {
            texts(store, MinState::ANY, &written).await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
        servers
            .standby
            .execute("SELECT pg_wal_replay_pause()")
            .await;
        other.append(&turn(&written, &["second"])).await.unwrap();
        let deleted = conversation(other, &["deleted"]).await;
        other.delete(&deleted, NEVER).await.unwrap();
        sleep(max_lag + Duration::from_millis(1)).await;
        let (shown, _) = texts(store, MinState::ANY, &written).await.unwrap();
        assert_eq!(shown, ["first", "second"], "round {round}");
        let found = store.search(&query(owner(&written), "second")).await;
        assert_eq!(found.unwrap().hits.len(), 1);
        assert!(!is_listed(store, &deleted).await);
        servers.resume().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_the_standby_lacks_is_found() {
    let servers = Replicated::start(lagging(UNLIMITED)).await;
    servers.pause().await;
    let created = conversation(&servers.other, &["new"]).await;
    let (shown, state) = texts(&servers.store, MinState::ANY, &created)
        .await
        .unwrap();
    assert_eq!(shown, ["new"]);
    assert_eq!(state, MinState::Latest);
    let (_, mut snapshot) = servers.store.snapshot(&created).await.unwrap();
    assert_eq!(snapshot.after(0, 10).await.unwrap().len(), 1);
}

/// Ways in which a standby stops responding.
#[derive(Clone, Copy, Debug)]
enum Outage {
    Suspended,
    PacketsHeld,
    Refused,
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_use_the_primary_while_the_standby_does_not_respond() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], standby.port()).into()).await;
    let url = format!("postgres://postgres@{}/postgres", proxy.address());
    let servers = Replicated::with_read_urls(primary, standby, &[&url], lagging(UNLIMITED)).await;
    for outage in [Outage::Suspended, Outage::PacketsHeld, Outage::Refused] {
        let marker = servers.pause().await;
        match outage {
            Outage::Suspended => servers.standby.freeze(),
            Outage::PacketsHeld => proxy.hold(),
            Outage::Refused => {
                proxy.refuse();
                proxy.close();
            }
        }
        let started = Stopwatch::start();
        assert!(!is_listed(&servers.store, &marker).await, "{outage:?}");
        let elapsed = started.elapsed();
        assert!(elapsed < NOTICED, "{outage:?}: {elapsed:?}");
        let started = Stopwatch::start();
        for _ in 0..20 {
            assert!(!is_listed(&servers.store, &marker).await, "{outage:?}");
        }
        let elapsed = started.elapsed();
        assert!(elapsed < NOTICED, "{outage:?}: {elapsed:?}");
        match outage {
            Outage::Suspended => servers.standby.thaw(),
            Outage::PacketsHeld | Outage::Refused => proxy.forward(),
        }
        eventually("the standby is used again", async || {
            is_listed(&servers.store, &marker).await
        })
        .await;
        servers.resume().await;
    }
}

/// The standby keeps a lock of the primary whose release it has not applied.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_the_standby_is_repeated_on_the_primary() {
    let servers = Replicated::start(lagging(UNLIMITED)).await;
    let kept = conversation(&servers.other, &["kept"]).await;
    servers.pause().await;
    servers.resume().await;
    let mut locking = servers.primary.connect().await;
    raw_sql("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")
        .execute(&mut locking)
        .await
        .unwrap();
    // Its commit writes what precedes it in the log.
    servers
        .primary
        .execute("SELECT pg_logical_emit_message(true, 'test', 'flush')")
        .await;
    servers.catch_up().await;
    servers
        .standby
        .execute("SELECT pg_wal_replay_pause()")
        .await;
    raw_sql("ROLLBACK").execute(&mut locking).await.unwrap();
    let started = Stopwatch::start();
    let (shown, state) = texts(&servers.store, MinState::ANY, &kept).await.unwrap();
    assert_eq!(
        (shown.as_slice(), state),
        (&["kept".to_owned()][..], MinState::Latest)
    );
    let elapsed = started.elapsed();
    assert!(elapsed < NOTICED, "{elapsed:?}");
    servers.resume().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_restarted_is_used_again() {
    let mut servers = Replicated::start(lagging(UNLIMITED)).await;
    let marker = servers.pause().await;
    servers.standby.kill();
    assert!(!is_listed(&servers.store, &marker).await);
    servers.standby.run().await;
    servers.pause().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_is_not_read() {
    let servers = Replicated::start(lagging(UNLIMITED)).await;
    let kept = conversation(&servers.other, &["kept"]).await;
    servers.pause().await;
    servers.standby.promote().await;
    // Another sidecar has been configured to write to it.
    let former = PostgresStore::new(options(&servers.standby.url()), 2);
    former.prepare(false).await.unwrap();
    let fork = turn(&kept, &["on another timeline"]);
    former.append(&fork).await.unwrap();
    for _ in 0..40 {
        let (shown, _) = texts(&servers.store, MinState::ANY, &kept).await.unwrap();
        assert_eq!(shown, ["kept"]);
        sleep(Duration::from_millis(50)).await;
    }
}

/// A standby whose primary has failed keeps what the promoted one has never received.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_of_another_history_is_not_read() {
    let max_lag = Duration::from_millis(300);
    let mut primary = PostgresServer::start().await;
    let promoted = primary.start_standby().await;
    let stale = primary.start_standby().await;
    let store = PostgresStore::connect(
        options(&primary.url()),
        vec![options(&promoted.url())],
        8,
        Languages::default(),
        Pooler::Detect,
    );
    let url = options(&stale.url());
    let store = store.with_replica(url, Vec::new(), 8, Pooler::Detect, lagging(max_lag));
    store.prepare(true).await.unwrap();
    let kept = conversation(&store, &["kept"]).await;
    eventually("both standbys have it", async || {
        has_messages(&promoted, 1).await && has_messages(&stale, 1).await
    })
    .await;
    for statement in [
        "ALTER SYSTEM SET primary_conninfo = ''",
        "SELECT pg_reload_conf()",
    ] {
        promoted.execute(statement).await;
    }
    eventually("one of them receives no more", async || {
        let mut standby = promoted.connect().await;
        let receivers = query_scalar("SELECT count(*) FROM pg_stat_wal_receiver");
        let receivers: i64 = receivers.fetch_one(&mut standby).await.unwrap();
        receivers == 0
    })
    .await;
    for _ in 0..20 {
        store.append(&turn(&kept, &["lost"])).await.unwrap();
    }
    eventually("the other one has the rest", async || {
        has_messages(&stale, 21).await
    })
    .await;
    primary.kill();
    promoted.promote().await;
    eventually("the promoted server is used", async || {
        store.append(&turn(&kept, &["after"])).await.is_ok()
    })
    .await;
    sleep(max_lag + Duration::from_millis(1)).await;
    for _ in 0..40 {
        let (shown, _) = texts(&store, MinState::ANY, &kept).await.unwrap();
        assert!(!shown.contains(&"lost".to_owned()), "{shown:?}");
        assert!(shown.contains(&"after".to_owned()), "{shown:?}");
        store.append(&turn(&kept, &["after"])).await.unwrap();
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn has_messages(server: &PostgresServer, number: i64) -> bool {
    let mut connection = server.connect().await;
    let count = query_scalar("SELECT count(*) FROM messages").fetch_one(&mut connection);
    count.await.is_ok_and(|count: i64| count == number)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_no_standbys_of_the_database_are_not_read() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    primary.execute("CREATE DATABASE elsewhere").await;
    let elsewhere = options(&in_database(&primary.url(), "elsewhere"));
    let store = PostgresStore::new(elsewhere, 2);
    store.prepare(true).await.unwrap();
    store.close().await;
    let (foreign, foreign_primary) = foreign_standby().await;
    let urls = [
        primary.url(),
        foreign.url(),
        foreign_primary.url(),
        in_database(&standby.url(), "elsewhere"),
        "postgres://postgres@127.0.0.1:1/postgres".to_owned(),
    ];
    for url in urls {
        let max_lag = Duration::from_millis(200);
        let store = with_replica(&primary, &[&url], lagging(max_lag)).await;
        let written = conversation(&store, &["one"]).await;
        for _ in 0..20 {
            let (shown, state) = texts(&store, MinState::ANY, &written).await.unwrap();
            assert_eq!(
                (shown.as_slice(), state),
                (&["one".to_owned()][..], MinState::Latest)
            );
            sleep(Duration::from_millis(20)).await;
        }
        store.close().await;
    }
}

/// Standby of another cluster, which has the same schema, and its primary.
async fn foreign_standby() -> (PostgresServer, PostgresServer) {
    let primary = PostgresServer::start().await;
    let store = PostgresStore::new(options(&primary.url()), 2);
    store.prepare(true).await.unwrap();
    store.close().await;
    (primary.start_standby().await, primary)
}

fn in_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standby_among_several_servers_is_used() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    let urls = [primary.url(), standby.url()];
    let urls = urls.each_ref().map(String::as_str);
    let servers = Replicated::with_read_urls(primary, standby, &urls, lagging(UNLIMITED)).await;
    let marker = servers.pause().await;
    let store = &servers.store;
    from_standby(async || texts(store, MinState::ANY, &marker).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_behind_a_pooler_is_used() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    let pooler = PgBouncer::start(standby.port(), "transaction", 4).await;
    let url = pooler.url();
    let servers = Replicated::with_read_urls(primary, standby, &[&url], lagging(UNLIMITED)).await;
    let marker = servers.pause().await;
    let store = &servers.store;
    let (shown, state) = from_standby(async || texts(store, MinState::ANY, &marker).await).await;
    assert_eq!(shown, ["marker"]);
    assert_ne!(state, MinState::Latest);
    // An export needs a connection of its own.
    let exported = servers.store.snapshot(&marker).await;
    assert!(matches!(exported, Err(StoreError::NotFound)));
}

/// The standby cancels statements that need rows which it has to remove.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_standby_cancels_is_read_from_the_primary() {
    let servers = Replicated::start(lagging(UNLIMITED)).await;
    for statement in [
        "ALTER SYSTEM SET max_standby_streaming_delay = 0",
        "SELECT pg_reload_conf()",
    ] {
        servers.standby.execute(statement).await;
    }
    let many: Vec<_> = (0..40).map(|number| format!("text {number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let exported = conversation(&servers.other, &many).await;
    let mut snapshot = None;
    eventually("the standby has canceled an export", async || {
        servers.pause().await;
        servers.resume().await;
        servers.catch_up().await;
        let before = servers.conflicts().await;
        let (_, mut taken) = servers.store.snapshot(&exported).await.unwrap();
        assert_eq!(taken.after(0, 10).await.unwrap().len(), 10);
        eventually("the transaction of the export has ended", async || {
            servers.remove_rows(&many).await;
            let exports = "state = 'idle in transaction'";
            servers.sessions_of_standby(exports).await == 0
        })
        .await;
        snapshot = Some(taken);
        // Otherwise the time limit of idle transactions has ended it.
        servers.conflicts().await > before
    })
    .await;
    servers.slow_searches_down().await;
    let searched = query(owner(&exported), "text");
    let before = servers.conflicts().await;
    // A session reports a conflict some seconds later.
    within_progress(
        "the standby has canceled a search",
        async || {
            let removals = async {
                loop {
                    if servers.sessions_of_standby("wait_event = 'PgSleep'").await > 0 {
                        servers.remove_rows(&many).await;
                    }
                }
            };
            let found = tokio::select! {
                found = servers.store.search(&searched) => found,
                () = removals => unreachable!("removals continue until the search ends"),
            };
            match found {
                // Nothing was removed before the time limit of the statement.
                Err(StoreError::SearchTooExpensive) => {}
                found => {
                    let page = found.unwrap();
                    assert_eq!((page.hits.len(), page.state), (40, MinState::Latest));
                }
            }
            servers.conflicts().await
        },
        |conflicts| *conflicts > before,
    )
    .await;
    let mut snapshot = snapshot.unwrap();
    let rest = snapshot.after(10, 100).await.unwrap();
    assert_eq!(rest.len(), 30);
}
