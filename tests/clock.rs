//! Order and TTLs do not depend on the wall clock: they stay correct while it jumps an hour
//! back and forth.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use conversation_memory::{
    domain::{
        Clock, ConversationRef, Limits, MessageId, NewMessage, RawMessage, Role, SessionRef,
        UserId, UuidV7,
    },
    fairness::FairSemaphore,
    memory::{
        BeginTurn, Dependencies, GetHistory, HistoryLimits, HistoryMessages, Memory, SaveMessages,
    },
    recent::none::NoWindow,
    sessions::in_process::{InProcessLimits, InProcessSessions},
    store::{ConversationQuery, MinState, Store, postgres::PostgresStore, sqlite::SqliteStore},
    tokens::TokenEncoding,
};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const TTL: Duration = Duration::from_mins(30);

/// Clock that is alternately an hour ahead and an hour behind.
#[derive(Debug, Default)]
struct JumpingClock(AtomicI64);

impl Clock for JumpingClock {
    fn now(&self) -> DateTime<Utc> {
        let jumps = self.0.fetch_add(1, Ordering::Relaxed);
        let hours = if jumps % 2 == 0 { 1 } else { -1 };
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::hours(hours)
    }
}

#[tokio::test]
async fn order_and_ttl_ignore_the_clock_embedded() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("conversations.db")).unwrap();
    check_order_and_ttl(Arc::new(store)).await;
}

#[tokio::test]
async fn order_and_ttl_ignore_the_clock_on_postgres() {
    let url = std::env::var("TEST_DATABASE_URL")
        .unwrap_or_else(|_| panic!("TEST_DATABASE_URL is not set: run the tests with `make test`"));
    let store = PostgresStore::new(url.parse().unwrap(), 4);
    check_order_and_ttl(Arc::new(store)).await;
}

async fn check_order_and_ttl(store: Arc<dyn Store>) {
    store.prepare(true).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(JumpingClock::default());
    let memory = Memory::new(Dependencies {
        store,
        recent: Arc::new(NoWindow),
        sessions: Arc::new(InProcessSessions::new(
            TTL,
            Arc::clone(&clock),
            InProcessLimits::default(),
        )),
        clock,
        ids: Arc::new(UuidV7),
        writes: TaskTracker::new(),
        write_permits: FairSemaphore::new(8),
        read_permits: FairSemaphore::new(8),
        response_bytes: FairSemaphore::new(1 << 20),
        import_permit: FairSemaphore::new(1),
        default_limit: 6,
        compaction_tokens: 0,
        token_encoding: TokenEncoding::None,
    });
    let user = UserId::parse(format!("user-{}", Uuid::now_v7())).unwrap();
    let turn = BeginTurn {
        user_id: user.clone(),
        dept_id: None,
        session_id: None,
        conversation_id: None,
        limits: HistoryLimits::default(),
    };
    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(memory.begin_turn(turn.clone()).await.unwrap());
    }
    // Activity in an order that differs from that of the clock's times.
    let order = [2, 0, 3, 1];
    for at in order {
        for number in 1..=5 {
            let saved = memory.save_messages(save(&turns[at].conversation_id, number));
            assert_eq!(saved.await.unwrap().last_seq, number);
        }
        let history = memory.get_history(GetHistory {
            conversation: conversation(&turns[at].conversation_id),
            limits: HistoryLimits::default(),
            min_seq: 5,
            strong: false,
            session_id: None,
            contexts: false,
        });
        let messages = history.await.unwrap().history.messages;
        let HistoryMessages::Decoded(messages) = messages else {
            panic!("there is no recent window");
        };
        let contents: Vec<&str> = messages
            .iter()
            .map(|found| found.content.as_str())
            .collect();
        assert_eq!(contents, ["1", "2", "3", "4", "5"]);
    }
    let query = ConversationQuery {
        user_id: user,
        dept_id: None,
        after: None,
        state: MinState::ANY,
        limit: 10,
    };
    let listed = memory
        .list_conversations(query)
        .await
        .unwrap()
        .conversations;
    let listed: Vec<_> = listed.iter().map(|found| found.id).collect();
    let latest_first: Vec<_> = order
        .iter()
        .rev()
        .map(|at| turns[*at].conversation_id)
        .collect();
    assert_eq!(listed, latest_first);
    // By the clock each session has expired, or has not started yet.
    for turn in turns {
        let session = SessionRef {
            id: turn.session.unwrap().id,
            user_id: None,
        };
        memory.get_session(session).await.unwrap();
    }
}

fn conversation(id: &conversation_memory::domain::ConversationId) -> ConversationRef {
    ConversationRef {
        id: *id,
        user_id: None,
    }
}

fn save(id: &conversation_memory::domain::ConversationId, number: i64) -> SaveMessages {
    SaveMessages {
        conversation: conversation(id),
        messages: vec![message(&number.to_string())],
        request_id: None,
        expected_last_seq: None,
        session_id: None,
    }
}

fn message(text: &str) -> NewMessage {
    let raw = RawMessage::text(Role::User, text);
    let generate_id = || MessageId::from_uuid(Uuid::now_v7());
    NewMessage::new(raw, std::iter::empty(), generate_id, &Limits::default()).unwrap()
}
