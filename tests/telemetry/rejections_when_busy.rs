//! The counter of what limits on concurrent work, and on its time, reject.

use std::time::Duration;

use bytes::Bytes;
use conversation_memory::proto::{
    Consistency, CreateSessionRequest, GetHistoryRequest, Role, SearchMessagesRequest,
    import_conversation_request::Options,
};
use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use test_support::{
    eventually, new_user,
    postgres_server::PostgresServer,
    raw_http2::{DATA, LARGE_WINDOW, NO_WINDOW, RawConnection, announced, grpc_message},
    requests::{history, import, message, new_conversation, save, save_text},
    required_variable,
    sidecar::{Form, Sidecar},
    store_fixture::SLOW_SEARCHES_ON_POSTGRES,
};
use tokio::{net::TcpStream, task::JoinSet};
use tonic_health::pb::HealthCheckRequest;

use crate::{metrics::Scrape, rejections::rejections};

const GET_HISTORY: &str = "/conversation_memory.v1.ConversationMemory/GetHistory";
const SAVE: &str = "/conversation_memory.v1.ConversationMemory/SaveMessages";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Waits until rejections by each of the limits are counted and logged.
async fn are_recorded(sidecar: &mut Sidecar, limits: &[&str]) {
    for limit in limits {
        sidecar
            .wait_for_log(&format!("\"limit\":\"{limit}\""))
            .await;
        let scrape = Scrape::of(sidecar).await;
        assert!(rejections(&scrape, limit) > 0, "{limit}");
    }
}

async fn connect(sidecar: &Sidecar, window: u32) -> RawConnection {
    RawConnection::open(sidecar.address, window).await.read()
}

#[tokio::test]
async fn rejections_of_half_sent_requests_are_recorded() {
    let form = Form::embedded();
    let settings = [("MAX_CALL_SECONDS", "2"), ("MAX_CONCURRENT_CALLS", "64")];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let mut connection = connect(&sidecar, LARGE_WINDOW).await;
    for _ in 0..65 {
        let stream = connection.begin_call(SAVE, None);
        connection.frame(DATA, 0, stream, &announced(100));
    }
    let limits = ["MAX_CONCURRENT_CALLS", "MAX_CALL_SECONDS"];
    are_recorded(&mut sidecar, &limits).await;
}

#[tokio::test]
async fn rejections_of_many_large_requests_are_recorded() {
    let form = Form::embedded();
    let settings = [
        ("MAX_REQUEST_BYTES", "200000"),
        ("MAX_PENDING_REQUEST_BYTES", "400000"),
        ("MAX_BLOB_BYTES", "0"),
    ];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    let text = "x".repeat(190_000);
    eventually("a request is rejected", async || {
        let mut saves = JoinSet::new();
        for _ in 0..8 {
            let mut memory = memory.clone();
            let save = save(&id, vec![message(Role::User, &text)]);
            saves.spawn(async move { memory.save_messages(save).await.is_err() });
        }
        saves.join_all().await.contains(&true)
    })
    .await;
    are_recorded(&mut sidecar, &["MAX_PENDING_REQUEST_BYTES"]).await;
}

#[tokio::test]
async fn rejections_of_unread_responses_are_recorded() {
    let form = Form::embedded();
    let settings = [
        ("MAX_CALL_SECONDS", "2"),
        ("MAX_PENDING_RESPONSE_BYTES", "16777216"),
    ];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let mut memory = sidecar.memory();
    let id = new_conversation(&mut memory, &new_user()).await;
    for _ in 0..3 {
        save_text(&mut memory, &id, &"x".repeat(1_000_000)).await;
    }
    let mut connection = connect(&sidecar, NO_WINDOW).await;
    for _ in 0..16 {
        connection.call(GET_HISTORY, None, &history(&id));
    }
    let limits = ["MAX_PENDING_RESPONSE_BYTES", "unread_responses"];
    are_recorded(&mut sidecar, &limits).await;
}

#[tokio::test]
async fn rejections_of_connections_and_probes_are_recorded() {
    let form = Form::embedded();
    let mut sidecar = Sidecar::start_with(&form, &[("MAX_CONNECTIONS", "4")]).await;
    let mut connection = connect(&sidecar, LARGE_WINDOW).await;
    let check = grpc_message(&HealthCheckRequest::default().encode_to_vec());
    for _ in 0..65 {
        let stream = connection.begin_call(CHECK, None);
        connection.frame(DATA, 0, stream, &announced(100));
        let stream = connection.begin_call(WATCH, None);
        connection.frame(DATA, 0, stream, &check);
    }
    are_recorded(&mut sidecar, &["probes", "health_watches"]).await;
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    are_recorded(&mut sidecar, &["MAX_CONNECTIONS"]).await;
}

#[tokio::test]
async fn rejections_of_imports_and_ends_of_sessions_are_recorded() {
    let form = Form::embedded();
    let settings = [("MAX_SESSIONS_PER_USER", "100000")];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let mut imports = JoinSet::new();
    for _ in 0..9 {
        let mut memory = sidecar.memory();
        let options = Options {
            user_id: new_user(),
            ..Options::default()
        };
        let head = "{\"format\":\"conversation-memory\",\"version\":1,\"conversation\":{}}\n";
        // The file never ends.
        let file = [Bytes::from(head)];
        let requests = stream::iter(import(options, file)).chain(stream::pending());
        imports.spawn(async move { memory.import_conversation(requests).await });
    }
    let mut sessions = sidecar.sessions();
    // Characters of four bytes, so that few sessions exceed the bytes of a user.
    let request = CreateSessionRequest {
        user_id: "😀".repeat(255),
        dept_id: "😀".repeat(255),
        ..CreateSessionRequest::default()
    };
    for _ in 0..4_000 {
        sessions.create_session(request.clone()).await.unwrap();
    }
    are_recorded(&mut sidecar, &["transfers", "session_memory"]).await;
}

#[tokio::test]
async fn rejections_while_the_store_is_slow_are_recorded() {
    let server = PostgresServer::start().await;
    let form = Form::Servers {
        database_url: server.url(),
        redis_url: required_variable("TEST_REDIS_URL"),
    };
    let mut sidecar = Sidecar::start(&form).await;
    let mut writer = Sidecar::start_with(&form, &[("MAX_CONCURRENT_CALLS", "4")]).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let id = new_conversation(&mut memory, &user).await;
    save_text(&mut memory, &id, "slow").await;
    server.execute(SLOW_SEARCHES_ON_POSTGRES).await;
    let mut calls = JoinSet::new();
    for _ in 0..12 {
        let mut memory = sidecar.memory();
        let search = SearchMessagesRequest {
            user_id: user.clone(),
            query: "slow".to_owned(),
            ..SearchMessagesRequest::default()
        };
        calls.spawn(async move { memory.search_messages(search).await.is_ok() });
    }
    are_recorded(&mut sidecar, &["searches", "search_time"]).await;
    server.freeze();
    for _ in 0..20 {
        let mut memory = sidecar.memory();
        let read = GetHistoryRequest {
            consistency: Consistency::Strong.into(),
            ..history(&id)
        };
        calls.spawn(async move { memory.get_history(read).await.is_ok() });
    }
    are_recorded(&mut sidecar, &["reads"]).await;
    abandon_writes(&mut writer, &id).await;
    are_recorded(&mut writer, &["writes"]).await;
    server.thaw();
}

/// Stops waiting for writes until one of them is rejected.
async fn abandon_writes(sidecar: &mut Sidecar, conversation: &str) {
    let mut memory = sidecar.memory();
    eventually("a write is rejected", async || {
        let messages = vec![message(Role::User, "late")];
        let mut request = tonic::Request::new(save(conversation, messages));
        request.set_timeout(Duration::from_millis(50));
        let status = memory.save_messages(request).await.unwrap_err();
        status.message().contains("concurrent writes")
    })
    .await;
}
