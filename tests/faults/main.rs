//! Fault tests: servers and sidecars that are killed, suspended and restarted.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod causes;
mod compactions;
mod connections;
mod disk;
mod load;
mod many;
mod mistakes;
mod permissions;
mod postgres;
mod process;
mod promotion;
mod redis;
mod replica;
mod windows;

use std::time::{Duration, Instant};

use conversation_memory::proto::{
    BeginTurnRequest, BeginTurnResponse, GetHistoryResponse, SessionState, Source,
};
use test_support::{
    STALL_LIMIT, eventually,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    requests::{contents, history},
    sidecar::{Form, Memory},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A failed call that took longer ran into a time limit of the store, of which the shortest is the
/// 900 ms to acquire a connection.
const TIMED_OUT: Duration = Duration::from_millis(500);

/// Private PostgreSQL and Redis of a test.
struct Servers {
    postgres: PostgresServer,
    redis: RedisServer,
}

impl Servers {
    async fn start() -> Self {
        let (postgres, redis) = tokio::join!(PostgresServer::start(), RedisServer::start(&[]));
        Self { postgres, redis }
    }

    fn form(&self) -> Form {
        Form::Servers {
            database_url: self.postgres.url(),
            redis_url: self.redis.url(),
        }
    }
}

/// Repeats a call until it succeeds, as long as it fails because a time limit of the store expired.
/// That is the documented outcome on a machine whose processors are busy: UNAVAILABLE, and nothing
/// was written. A call that fails sooner fails the test.
async fn unless_timed_out<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> T {
    let first = Instant::now();
    loop {
        let started = Instant::now();
        match call().await {
            Ok(answer) => return answer,
            Err(status) => {
                assert_retry_later(&status);
                let took = started.elapsed();
                assert!(took > TIMED_OUT, "failed after {took:?}: {status:?}");
                assert!(first.elapsed() < STALL_LIMIT, "{status:?}");
            }
        }
    }
}

/// Begins a turn on a running Redis. The time limit on calls of Redis may expire on a busy machine;
/// the turn then begins without a session and is begun again.
async fn begun_with_session(memory: &mut Memory, turn: &BeginTurnRequest) -> BeginTurnResponse {
    let mut begun = None;
    eventually("Redis answers in time", async || {
        let turn = memory.begin_turn(turn.clone()).await.unwrap().into_inner();
        let has_session = turn.session_state() != SessionState::Unavailable;
        assert_eq!(turn.session.is_some(), has_session);
        begun = Some(turn);
        has_session
    })
    .await;
    begun.unwrap()
}

async fn read(memory: &mut Memory, conversation: &str) -> GetHistoryResponse {
    let answer = memory.get_history(history(conversation)).await;
    answer.unwrap().into_inner()
}

/// Waits until a conversation is read from Redis. Every read on the way is correct.
async fn read_from_cache(memory: &mut Memory, conversation: &str, expected: &[&str]) {
    eventually("histories come from Redis", async || {
        let answer = read(memory, conversation).await;
        assert_eq!(contents(&answer.messages), expected);
        answer.source() == Source::Cache
    })
    .await;
}

fn assert_retry_later(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some());
}
