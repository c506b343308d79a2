//! How much: calls in a second, connections, and many of both.

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

test_support::in_both_forms!(many_connections_and_calls_each_get_a_status);

async fn connect(sidecar: &Sidecar) -> TcpStream {
    TcpStream::connect(sidecar.address).await.unwrap()
}

/// How long a refusal says to wait.
fn wait_of(refused: &Status) -> Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let info = refused.get_details_retry_info().unwrap();
    info.retry_delay.unwrap()
}

#[tokio::test]
async fn a_caller_is_kept_to_its_rate() {
    let (first, second) = (tokens::TOKEN, tokens::OTHER);
    let file = tokens::File::of(&[("first", first), ("second", second)]);
    let form = Form::embedded();
    // One call in a second: the next would be too early for seconds, however slow this is.
    let sidecar = file.start(&form, &[("MAX_CALLER_RATE", "1")]).await;
    let mut memory = sidecar.memory();
    let [first, second] = [first, second].map(|token| format!("Bearer {token}"));
    let mut refused = None;
    eventually("a call comes too early", async || {
        let begun = begin_with(&mut memory, Some(&first)).await;
        refused = begun.err();
        refused.is_some()
    })
    .await;
    let wait = wait_of(refused.as_ref().unwrap());
    assert!(
        !wait.is_zero() && wait <= Duration::from_secs(1),
        "{wait:?}"
    );
    // Others have their own, and health is not counted.
    begin_with(&mut memory, Some(&second)).await.unwrap();
    let mut health = HealthClient::new(sidecar.channel());
    for _ in 0..20 {
        health.check(HealthCheckRequest::default()).await.unwrap();
    }
    eventually("REST is refused, too", async || {
        let headers = format!("authorization: {first}\r\n");
        let line = "GET /v1/conversations?user_id=ana";
        let answer = http(connect(&sidecar).await, line, &headers).await;
        assert!(answer.status == StatusCode::OK || answer.text.contains("retryDelay"));
        answer.status == StatusCode::TOO_MANY_REQUESTS
    })
    .await;
    eventually("time brings another call", async || {
        begin_with(&mut memory, Some(&first)).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "3")]).await;
    let mut memory = sidecar.memory();
    begin(&mut memory).await.unwrap();
    let (idle, other) = (connect(&sidecar).await, connect(&sidecar).await);
    let mut refused = connect(&sidecar).await;
    let ended = completes("the connection ends", refused.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)));
    // Those that are there stay, and operators are not touched.
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
        "conversation_memory_connections_active 3",
        "conversation_memory_connections_refused_total{reason=\"limit\"} 1",
        "conversation_memory_connections_refused_total{reason=\"handshake\"} 0",
    ] {
        assert!(page.text.lines().any(|line| line == value), "{page:?}");
    }
    drop((idle, other));
    eventually("a place becomes free", async || {
        let line = "GET /openapi.json";
        try_http(connect(&sidecar).await, line, "").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn the_silent_take_nobodys_place_for_long() {
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
    // Whoever is in the pod has places of its own.
    begin(&mut memory_at(&socket).await).await.unwrap();
    eventually("there is a place for a probe again", async || {
        let stream = TcpStream::connect(operations).await.unwrap();
        try_http(stream, "GET /livez", "").await.is_some()
    })
    .await;
    eventually("and for a caller", async || {
        let stream = connect(&sidecar).await;
        try_http(stream, "GET /openapi.json", "").await.is_some()
    })
    .await;
}

#[tokio::test]
async fn asking_for_health_takes_no_memory() {
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
/// What a call's request has: as much as a long turn.
const BYTES: usize = 64 << 10;
/// How much memory all of them may take: far less than each having its own for long.
const MAX_KIB: u64 = 600 << 10;

/// One at a time: the test's own process has no more open files than any other.
static TURN: Mutex<()> = Mutex::const_new(());

async fn many_connections_and_calls_each_get_a_status(form: Form) {
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
    let (asked, slowest) = watch.await.unwrap();
    assert_eq!(ends.len(), CALLS);
    let mut served = 0;
    for end in ends {
        match end {
            Ok(()) => served += 1,
            Err(refused) if refused.code() == Code::Unavailable => {
                assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
            }
            Err(refused) => drop(wait_of(&refused)),
        }
    }
    let peak = sidecar.peak_kib();
    eprintln!(
        "{served} of {CALLS} served; health asked {asked} times, {slowest:?} at most; {peak} KiB"
    );
    assert!(served > 0 && asked > 0);
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

/// Requests both kinds of health until `done`. Returns the number of pairs of requests, and the
/// longest time that a pair took.
async fn healthy_until(operations: std::net::SocketAddr, done: Arc<AtomicBool>) -> (u32, Duration) {
    const LIMIT: Duration = Duration::from_secs(5);
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://{operations}"));
    let mut health = HealthClient::new(endpoint.unwrap().connect_lazy());
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let started = Stopwatch::start();
        let stream = TcpStream::connect(operations).await.unwrap();
        let ready = completes("/readyz answers", http(stream, "GET /readyz", "")).await;
        assert_eq!(ready.status, StatusCode::OK);
        let check = health.check(HealthCheckRequest::default());
        let answer = completes("the health check answers", check).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        asked += 1;
        slowest = slowest.max(started.elapsed());
        assert!(slowest < LIMIT, "health took {slowest:?}");
    }
    (asked, slowest)
}
