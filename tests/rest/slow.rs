//! Request bodies that arrive slowly or incompletely.

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use test_support::{
    completes, eventually,
    http::{Http, contents},
    new_user,
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(
    a_stalled_body_ends_at_the_deadline,
    a_stalled_body_ends_at_the_maximum_call_time,
    a_truncated_body_changes_nothing,
);

/// A save that is complete JSON: only its announced length shows that a byte is missing.
const SAVE: &str = r#"{"messages":[{"role":"ROLE_USER","content":"half"}]}"#;

/// Head of a save that announces a longer body than is sent.
fn head(conversation: &str, length: &str, deadline: &str) -> String {
    format!(
        "POST /v1/conversations/{conversation}/messages HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\n{length}\r\n{deadline}\r\n"
    )
}

fn announced() -> String {
    format!("content-length: {}", SAVE.len() + 1)
}

/// Sends a head and half a body, and returns the status and the body of the response.
async fn response_to_half(sidecar: &Sidecar, head: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&SAVE.as_bytes()[..20]).await.unwrap();
    read_response(&mut stream).await
}

/// Reads a response, after which the connection must end: otherwise the rest of the body would
/// be read as a request.
async fn read_response(stream: &mut TcpStream) -> (u16, Value) {
    let mut response = String::new();
    let read = stream.read_to_string(&mut response);
    completes("the response ends", read).await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

async fn calls_are_active(sidecar: &mut Sidecar, count: usize) {
    let operations = Http::at(sidecar.operations().await);
    let count = format!(" {count}");
    eventually("the calls are active", async || {
        let page = operations.get("/metrics").await;
        let page = String::from_utf8(page.body.to_vec()).unwrap();
        let mut lines = page.lines();
        let line = lines.find(|line| line.starts_with("conversation_memory_calls_active"));
        line.is_some_and(|line| line.ends_with(&count))
    })
    .await;
}

async fn a_stalled_body_ends_at_the_deadline(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let head = head(&id, &announced(), "grpc-timeout: 200m\r\n");
    let (status, response) = response_to_half(&sidecar, &head).await;
    assert_eq!((status, &response["error"]["code"]), (504, &504.into()));
    assert_eq!(response["error"]["status"], "DEADLINE_EXCEEDED");
    calls_are_active(&mut sidecar, 0).await;
    is_empty(&http, &id).await;
}

async fn a_stalled_body_ends_at_the_maximum_call_time(form: Form) {
    let settings = [("MAX_CALL_SECONDS", "1"), ("MAX_CONCURRENT_CALLS", "1")];
    let mut sidecar = Sidecar::start_with(&form, &settings).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    // The permit of a call is released when its response has been sent.
    calls_are_active(&mut sidecar, 0).await;
    let head = head(&id, &announced(), "");
    let (status, response) = response_to_half(&sidecar, &head).await;
    assert_eq!(status, 504);
    assert_eq!(response["error"]["status"], "DEADLINE_EXCEEDED");
    calls_are_active(&mut sidecar, 0).await;
    is_empty(&http, &id).await;
}

async fn a_truncated_body_changes_nothing(form: Form) {
    let mut sidecar = Sidecar::start(&form).await;
    let http = Http::new(&sidecar);
    let id = http.conversation(&new_user()).await;
    let chunk = format!("{:x}\r\n{SAVE}\r\n", SAVE.len());
    for (length, body) in [
        (announced().as_str(), SAVE),
        ("transfer-encoding: chunked", &chunk),
    ] {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        let head = head(&id, length, "");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let (status, response) = read_response(&mut stream).await;
        assert_eq!(status, 400, "{length}");
        assert_eq!(response["error"]["status"], "INVALID_ARGUMENT");
        // A client that closed the connection receives nothing.
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        calls_are_active(&mut sidecar, 1).await;
        drop(stream);
        calls_are_active(&mut sidecar, 0).await;
    }
    reset_over_http_2(&mut sidecar, &id).await;
    calls_are_active(&mut sidecar, 0).await;
    is_empty(&http, &id).await;
}

/// Sends a complete save and then, instead of the end of the body, a reset of the stream.
async fn reset_over_http_2(sidecar: &mut Sidecar, conversation: &str) {
    let (reset, wanted) = oneshot::channel();
    let whole = stream::iter([Ok(Frame::data(Bytes::from_static(SAVE.as_bytes())))]);
    let broken = stream::once(async {
        wanted.await.unwrap();
        Err(std::io::Error::other("the caller's own failure"))
    });
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let path = format!("/v1/conversations/{conversation}/messages");
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{path}", sidecar.address))
        .header("content-type", "application/json")
        .body(StreamBody::new(whole.chain(broken).boxed()))
        .unwrap();
    let answered = tokio::spawn(client.request(request));
    calls_are_active(sidecar, 1).await;
    reset.send(()).unwrap();
    answered.await.unwrap().unwrap_err();
}

async fn is_empty(http: &Http, conversation: &str) {
    let whole = http.get(&format!("/conversations/{conversation}")).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert!(contents(&whole.ok()).is_empty());
}
