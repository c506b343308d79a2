//! Limits on the rate of calls and on connections, and many of both at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use conversation_memory::proto::{BeginTurnRequest, Role};
use http::StatusCode;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::Mutex, task::JoinSet};
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::{
    client::{begin, begin_with, http, memory_at, try_http},
    tokens,
};
use test_support::{
    completes, eventually, new_user,
    sidecar::{Form, Memory, Sidecar},
    stopwatch::Stopwatch,
};

test_support::in_both_forms!(every_call_gets_a_status_under_load);

async fn connect(sidecar: &Sidecar) -> TcpStream {
    TcpStream::connect(sidecar.address).await.unwrap()
}

/// Delay after which a rejected call may be retried.
fn retry_delay_of(refused: &Status) -> Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_retry_info().unwrap();
    info.retry_delay.unwrap()
}

#[tokio::test]
async fn limits_the_rate_of_each_caller() {
    let (first, second) = (tokens::TOKEN, tokens::OTHER);
    let file = tokens::TokenFile::of(&[("first", first), ("second", second)]);
    let form = Form::embedded();
    // One call per second, so that the second call exceeds the rate on a slow machine, too.
    let sidecar = file.start(&form, &[("MAX_CALLER_RATE", "1")]).await;
    let mut memory = sidecar.memory();
    let [first, second] = [first, second].map(|token| format!("Bearer {token}"));
    let mut refused = None;
    eventually("a call exceeds the rate", async || {
        let begun = begin_with(&mut memory, Some(&first)).await;
        refused = begun.err();
        refused.is_some()
    })
    .await;
    let wait = retry_delay_of(refused.as_ref().unwrap());
    assert!(
        !wait.is_zero() && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    assert_eq!(
        refused.unwrap().message(),
        "rate limit exceeded (1 calls/s): call less often, or raise MAX_CALLER_RATE"
    );
    // Other callers have their own rate, and health checks are not counted.
    begin_with(&mut memory, Some(&second)).await.unwrap();
    let mut health = HealthClient::new(sidecar.channel());
    for _ in 0..20 {
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
    eventually("a REST call exceeds the rate, too", async || {
        let headers = format!("authorization: {first}\r\n");
        let line = "GET /v1/conversations?user_id=ana";
        let answer = http(connect(&sidecar).await, line, &headers).await;
        assert!(answer.status == StatusCode::OK || answer.text.contains("retryDelay"));
        answer.status == StatusCode::TOO_MANY_REQUESTS
    })
    .await;
    eventually("the caller may call again", async || {
        begin_with(&mut memory, Some(&first)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_replaces_the_longest_inactive_one() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "3")]).await;
    let mut memory = sidecar.memory();
    begin(&mut memory).await.unwrap();
    let (mut idle, other) = (connect(&sidecar).await, connect(&sidecar).await);
    let mut new = connect(&sidecar).await;
    let ended = completes("the connection ends", idle.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    assert!(try_http(&mut new, "GET /openapi.json", "").await.is_some());
    // Connections with calls stay, and the operations port has no such limit.
    begin(&mut memory).await.unwrap();
    let operations = sidecar.operations().await;
    let page = http(
        TcpStream::connect(operations).await.unwrap(),
        "GET /metrics",
        "",
    )
    .await;
    for value in [
        "conversation_memory_connections_limit 3",
        "conversation_memory_connections_closed_total{reason=\"replaced\"} 1",
        "conversation_memory_connections_refused_total{reason=\"limit\"} 0",
        "conversation_memory_connections_refused_total{reason=\"handshake\"} 0",
    ] {
        assert!(page.text.lines().any(|line| line == value), "{page:?}");
    }
    drop(other);
}

#[tokio::test]
async fn refuses_connections_while_all_others_have_calls() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "2")]).await;
    let (mut first, mut second) = (sidecar.memory(), sidecar.memory());
    begin(&mut first).await.unwrap();
    begin(&mut second).await.unwrap();
    let mut refused = connect(&sidecar).await;
    let ended = completes("the connection ends", refused.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    begin(&mut first).await.unwrap();
    begin(&mut second).await.unwrap();
    drop((first, second));
    eventually("a connection is accepted again", async || {
        let line = "GET /openapi.json";
        try_http(connect(&sidecar).await, line, "").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn closes_connections_that_send_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("memory.sock");
    let addresses = format!("unix:{},127.0.0.1:0", socket.display());
    let settings = [("LISTEN_ADDR", &*addresses), ("MAX_CONNECTIONS", "2")];
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let operations = sidecar.operations().await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(operations).await.unwrap());
    }
    for _ in 0..2 {
        silent.push(connect(&sidecar).await);
    }
    // Unix sockets have a limit of their own.
    begin(&mut memory_at(&socket).await).await.unwrap();
    eventually("a probe is accepted again", async || {
        let stream = TcpStream::connect(operations).await.unwrap();
        try_http(stream, "GET /livez", "").await.is_some()
    })
    .await;
    eventually("a call is accepted again", async || {
        let stream = connect(&sidecar).await;
        try_http(stream, "GET /openapi.json", "").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn rejects_large_health_checks() {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let mut health = HealthClient::new(sidecar.channel());
    let service = "x".repeat(8 << 10);
    let refused = health.check(HealthCheckRequest { service }).await;
    let codes = [Code::OutOfRange, Code::ResourceExhausted];
    assert!(codes.contains(&refused.unwrap_err().code()));
}

const IDLE: usize = 500;
const CALLS: usize = 2000;
/// Bytes of a call's request: those of a long turn.
const BYTES: usize = 64 << 10;
/// Limit on the memory of the process: far less than all requests at once would take.
const MAX_KIB: u64 = 600 << 10;

/// Serializes the tests, whose own process has a limit on open files.
static TURN: Mutex<()> = Mutex::const_new(());

async fn every_call_gets_a_status_under_load(form: Form) {
    let _turn = TURN.lock().await;
    let mut sidecar = Sidecar::start(&form).await;
    let operations = sidecar.operations().await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(connect(&sidecar).await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(healthy_until(operations, Arc::clone(&done)));
    let channels: Vec<_> = (0..20).map(|_| sidecar.channel()).collect();
    let conversation = begin(&mut sidecar.memory()).await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut memory = Memory::new(channels[number % channels.len()].clone());
        let conversation = conversation.clone();
        calls.spawn(async move {
            if number % 2 == 0 {
                return save(&mut memory, &conversation).await;
            }
            let request = BeginTurnRequest {
                user_id: new_user(),
                ..BeginTurnRequest::default()
            };
            memory.begin_turn(request).await.map(drop)
        });
    }
    let ends = completes("every call ends", calls.join_all()).await;
    done.store(true, Ordering::Relaxed);
    let (checks, slowest) = watch.await.unwrap();
    assert_eq!(ends.len(), CALLS);
    let mut served = 0;
    for end in ends {
        match end {
            Ok(()) => served += 1,
            Err(refused) if refused.code() == Code::Unavailable => {
                assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
            }
            Err(refused) => drop(retry_delay_of(&refused)),
        }
    }
    let peak = sidecar.peak_kib();
    eprintln!(
        "{served} of {CALLS} calls served; {checks} health checks, the slowest took {slowest:?}; {peak} KiB"
    );
    assert!(served > 0 && checks > 0);
    assert!(peak < MAX_KIB, "{peak} KiB");
    assert_eq!(idle.len(), IDLE);
    begin(&mut sidecar.memory()).await.unwrap();
}

async fn save(memory: &mut Memory, conversation: &str) -> Result<(), Status> {
    let message = conversation_memory::proto::Message {
        role: Role::User.into(),
        content: "x".repeat(BYTES),
        ..conversation_memory::proto::Message::default()
    };
    let request = conversation_memory::proto::SaveMessagesRequest {
        conversation_id: conversation.to_owned(),
        messages: vec![message],
        ..conversation_memory::proto::SaveMessagesRequest::default()
    };
    memory.save_messages(request).await.map(drop)
}

/// Checks the health over HTTP and gRPC until `done`. Returns the number of checks and the
/// longest time that one took.
async fn healthy_until(operations: std::net::SocketAddr, done: Arc<AtomicBool>) -> (u32, Duration) {
    const LIMIT: Duration = Duration::from_secs(5);
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{operations}"));
    let mut health = HealthClient::new(endpoint.unwrap().connect_lazy());
    let (mut checks, mut slowest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let started = Stopwatch::start();
        let stream = TcpStream::connect(operations).await.unwrap();
        let ready = completes("/readyz answers", http(stream, "GET /readyz", "")).await;
        assert_eq!(ready.status, StatusCode::OK);
        let check = health.check(HealthCheckRequest::default());
        let answer = completes("the health check answers", check).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        checks += 1;
        slowest = slowest.max(started.elapsed());
        assert!(slowest < LIMIT, "health took {slowest:?}");
    }
    (checks, slowest)
}
