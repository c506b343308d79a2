//! Reads from a standby under load, compared with what was acknowledged, while its replay is paused, it
//! is suspended, and its connections are lost.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use conversation_memory::{
    domain::ConversationRef,
    store::{
        Bound, ConversationQuery, MinState, Store,
        postgres::{Pooler, PostgresStore, ReplicaSettings},
    },
};
use sqlx::raw_sql;
use test_support::{
    postgres_server::PostgresServer,
    random::Random,
    rounds,
    store_fixture::{at, new_conversation, owned_ref, turn, user},
    tcp_proxy::TcpProxy,
};
use tokio::{task::JoinSet, time::sleep};

const MAX_LAG: Duration = Duration::from_millis(250);
const CONVERSATIONS: usize = 6;
const PAGE: u32 = 4;

/// Times at which the saves of each conversation were acknowledged: its first message at position 0.
#[derive(Default)]
struct Acknowledged(Mutex<HashMap<usize, Vec<Instant>>>);

impl Acknowledged {
    fn add(&self, conversation: usize) {
        let mut all = self.0.lock().unwrap();
        all.entry(conversation).or_default().push(Instant::now());
    }

    /// Number of messages that were acknowledged before a time.
    fn before(&self, conversation: usize, time: Instant) -> usize {
        let all = self.0.lock().unwrap();
        let times = all.get(&conversation).map_or(&[][..], Vec::as_slice);
        times.partition_point(|at| *at < time)
    }
}

struct Scenario {
    /// Writes as another sidecar.
    other: PostgresStore,
    store: PostgresStore,
    conversations: Vec<ConversationRef>,
    acknowledged: Acknowledged,
    is_done: AtomicBool,
}

impl Scenario {
    /// Saves one message after the other.
    async fn write(self: Arc<Self>, number: usize) {
        let is_own = number == 0;
        let store = if is_own { &self.store } else { &self.other };
        let conversation = &self.conversations[number];
        while !self.is_done.load(Ordering::Relaxed) {
            store.append(&turn(conversation, &["x"])).await.unwrap();
            self.acknowledged.add(number);
            if is_own {
                let now = Instant::now();
                let read = self.read_all(number, true).await;
                let expected = self.acknowledged.before(number, now);
                assert!(read >= expected, "own writes: {read} of {expected}");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads conversations page by page, each of which continues the previous one.
    async fn read(self: Arc<Self>, seed: u64) -> u64 {
        let mut random = Random::new(seed);
        let mut reads = 0;
        while !self.is_done.load(Ordering::Relaxed) {
            let number = random.below(CONVERSATIONS);
            let began = Instant::now();
            let read = self.read_all(number, random.one_in(2)).await;
            let oldest = began.checked_sub(MAX_LAG).unwrap();
            let expected = self.acknowledged.before(number, oldest);
            assert!(read >= expected, "{read} messages of {expected}");
            self.check_strong(number).await;
            self.check_listed(number).await;
            reads += 1;
        }
        reads
    }

    /// Returns the number of messages, which have consecutive numbers without a gap.
    async fn read_all(&self, number: usize, ascending: bool) -> usize {
        let conversation = &self.conversations[number];
        let (mut state, mut seqs) = (MinState::ANY, Vec::new());
        let mut from = if ascending {
            Bound::After(0)
        } else {
            Bound::Before(i64::MAX)
        };
        loop {
            let page = self
                .store
                .messages_since(state, conversation, from, PAGE, false)
                .await;
            let (page, next) = page.unwrap();
            state = next;
            let Some(last) = page.last() else {
                break;
            };
            from = from.past(last.seq);
            seqs.extend(page.iter().map(|message| message.seq));
        }
        if !ascending {
            seqs.reverse();
        }
        let expected: Vec<i64> = (1..).take(seqs.len()).collect();
        assert_eq!(seqs, expected);
        seqs.len()
    }

    /// A read of the latest state shows everything.
    async fn check_strong(&self, number: usize) {
        let began = Instant::now();
        let newest = self.store.newest(&self.conversations[number], 1, false);
        let last_seq = newest.await.unwrap().conversation.last_seq;
        let expected = self.acknowledged.before(number, began);
        assert!(usize::try_from(last_seq).unwrap() >= expected);
    }

    async fn check_listed(&self, number: usize) {
        let began = Instant::now();
        let conversation = &self.conversations[number];
        let query = ConversationQuery {
            user_id: conversation.user_id.clone().unwrap(),
            dept_id: None,
            after: None,
            state: MinState::ANY,
            limit: 5,
        };
        let listed = self.store.list(&query).await.unwrap().conversations;
        let oldest = began.checked_sub(MAX_LAG).unwrap();
        let expected = self.acknowledged.before(number, oldest);
        let last_seq = listed.first().map_or(0, |listed| listed.last_seq);
        assert!(usize::try_from(last_seq).unwrap() >= expected);
    }
}

/// Disturbs the standby in one of the ways.
async fn disturb(standby: &PostgresServer, proxy: &TcpProxy, way: usize) {
    let duration = Duration::from_millis(400);
    match way {
        0 => {
            standby.execute("SELECT pg_wal_replay_pause()").await;
            sleep(duration).await;
            standby.execute("SELECT pg_wal_replay_resume()").await;
        }
        1 => {
            standby.freeze();
            sleep(duration).await;
            standby.thaw();
        }
        2 => {
            proxy.hold();
            sleep(duration).await;
            proxy.forward();
        }
        3 => proxy.close(),
        _ => {
            let mut connection = standby.connect().await;
            let terminated = raw_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'conversation-memory'",
            );
            terminated.execute(&mut connection).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_it_may_be() {
    let primary = PostgresServer::start().await;
    let standby = primary.start_standby().await;
    let proxy = TcpProxy::start(([127, 0, 0, 1], standby.port()).into()).await;
    let read_url = format!("postgres://postgres@{}/postgres", proxy.address());
    let other = PostgresStore::new(primary.url().parse().unwrap(), 8);
    other.prepare(true).await.unwrap();
    let store = PostgresStore::new(primary.url().parse().unwrap(), 8);
    let settings = ReplicaSettings {
        max_lag: MAX_LAG,
        reads_own_writes: true,
    };
    let read_url = read_url.parse().unwrap();
    let store = store.with_replica(read_url, Vec::new(), 8, Pooler::Detect, settings);
    store.prepare(false).await.unwrap();
    let mut conversations = Vec::new();
    for _ in 0..CONVERSATIONS {
        let new = new_conversation(&user());
        other.create(&new, at(0)).await.unwrap();
        conversations.push(owned_ref(&new));
    }
    let scenario = Arc::new(Scenario {
        other,
        store,
        conversations,
        acknowledged: Acknowledged::default(),
        is_done: AtomicBool::new(false),
    });
    let (mut writers, mut readers) = (JoinSet::new(), JoinSet::new());
    for number in 0..CONVERSATIONS {
        writers.spawn(Arc::clone(&scenario).write(number));
    }
    for seed in 0..4 {
        readers.spawn(Arc::clone(&scenario).read(seed));
    }
    let mut random = Random::new(7);
    for _ in 0..rounds("REPLICA_ROUNDS", 12) {
        sleep(Duration::from_millis(500)).await;
        disturb(&standby, &proxy, random.below(5)).await;
    }
    scenario.is_done.store(true, Ordering::Relaxed);
    writers.join_all().await;
    let reads: u64 = readers.join_all().await.into_iter().sum();
    eprintln!("{reads} reads");
    assert!(reads > 0);
}
