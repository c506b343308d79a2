//! Calls that are not finished: half-sent requests, and streams without an end.

use std::time::Duration;

use bytes::BufMut as _;
use test_support::{
    raw_http2::{DATA, LARGE_WINDOW, RawConnection, announced, grpc_message},
    sidecar::{Form, Sidecar},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};
use tonic_health::pb::HealthCheckRequest;

use crate::turns::{Access, Turns};

const SAVE: &str = "/conversation_memory.v1.ConversationMemory/SaveMessages";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Most concurrent calls that a connection permits.
const CALLS: usize = 1024;
/// Size of the requests that are announced.
const ANNOUNCED: u32 = 12 << 20;

const IMPORT: &str = "/conversation_memory.v1.ConversationMemory/ImportConversation";

test_support::in_both_forms!(half_sent_requests_do_not_exhaust_memory_or_calls);

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_calls_of_many_connections_leave_calls_to_others() {
    let form = Form::embedded();
    let sidecar = Sidecar::start_with(&form, &[("MAX_CONCURRENT_CALLS", "64")]).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut attackers = JoinSet::new();
    for _ in 0..40 {
        let mut connection = RawConnection::open(sidecar.address, LARGE_WINDOW)
            .await
            .read();
        attackers.spawn(async move {
            // Calls that have ended are repeated.
            while !connection.is_closed() {
                for path in [SAVE, IMPORT] {
                    let stream = connection.begin_call(path, None);
                    connection.frame(DATA, 0, stream, &announced(100));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    turns.pass(20).await;
    assert_eq!(attackers.len(), 40, "no connection is closed");
    turns.finish(&sidecar).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_health_checks_do_not_exhaust_memory() {
    attack_with_streams(CHECK, 40, |connection, stream| {
        connection.frame(DATA, 0, stream, &announced(100));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watches_do_not_exhaust_memory_or_calls() {
    attack_with_streams(WATCH, 20, |connection, stream| {
        let request = prost::Message::encode_to_vec(&HealthCheckRequest::default());
        connection.frame(DATA, 0, stream, &grpc_message(&request));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_reflection_streams_do_not_exhaust_memory_or_calls() {
    attack_with_streams(REFLECTION, 20, |_, _| {}).await;
}

/// Opens streams over many connections, and keeps them open while the unrelated caller performs turns.
async fn attack_with_streams(path: &str, connections: usize, begin: impl Fn(&RawConnection, u32)) {
    let form = Form::embedded();
    let sidecar = Sidecar::start(&form).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut opened = Vec::new();
    for _ in 0..connections {
        let mut connection = RawConnection::open(sidecar.address, LARGE_WINDOW)
            .await
            .read();
        for _ in 0..CALLS {
            let stream = connection.begin_call(path, None);
            begin(&connection, stream);
        }
        turns.pass(1).await;
        opened.push(connection);
    }
    turns.finish(&sidecar).await;
}

async fn half_sent_requests_do_not_exhaust_memory_or_calls(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[("MAX_CALL_SECONDS", "4")]).await;
    let turns = Turns::start(&sidecar, Access::default()).await;
    let mut connection = RawConnection::open(sidecar.address, LARGE_WINDOW)
        .await
        .read();
    for _ in 0..CALLS {
        let stream = connection.begin_call(SAVE, None);
        let mut half = announced(ANNOUNCED);
        half.put_bytes(b'x', 8 << 10);
        connection.frame(DATA, 0, stream, &half);
    }
    let mut bodies = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        let head = format!(
            "POST /v1/turns:begin HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {ANNOUNCED}\r\n\r\n{{\"userId\":\""
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 64 << 10]).await.unwrap();
        bodies.push(stream);
    }
    connection.ends(CALLS).await;
    turns.finish(&sidecar).await;
}
