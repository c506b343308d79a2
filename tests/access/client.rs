//! Clients of the tests: requests over any stream, and the parts of responses that they check.

use std::path::Path;

use conversation_memory::proto::{BeginTurnRequest, GetConversationRequest};
use http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status, transport::Channel};

use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use test_support::{new_user, sidecar::Memory};

/// A response over HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpResponse {
    pub(crate) status: StatusCode,
    /// The header without its date, and the body.
    pub(crate) text: String,
}

/// Sends a request by HTTP/1.1 on a new connection.
pub(crate) async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request_line: &str,
    headers: &str,
) -> HttpResponse {
    let answer = try_http(stream, request_line, headers).await;
    answer.expect("the connection was closed without an answer")
}

/// The same. `None` if the server closes the connection without a response.
pub(crate) async fn try_http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request_line: &str,
    headers: &str,
) -> Option<HttpResponse> {
    let request =
        format!("{request_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    // If the server has closed the connection, the response is empty.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1)?.parse().unwrap();
    let lines = answer.lines().filter(|line| !line.starts_with("date:"));
    Some(HttpResponse {
        status,
        text: lines.collect::<Vec<_>>().join("\n"),
    })
}

/// The header with a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

pub(crate) async fn unix(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.unwrap()
}

/// A client of the API at a Unix socket.
pub(crate) async fn memory_at(path: &Path) -> Memory {
    Memory::new(channel_at(path).await)
}

pub(crate) async fn channel_at(path: &Path) -> Channel {
    let endpoint = tonic::transport::Endpoint::try_from(format!("unix:{}", path.display()));
    endpoint.unwrap().connect().await.unwrap()
}

/// Starts a conversation and returns its id.
pub(crate) async fn begin(memory: &mut Memory) -> Result<String, Status> {
    begin_with(memory, None).await
}

/// The same with a value of the header `authorization`.
pub(crate) async fn begin_with(
    memory: &mut Memory,
    authorization: Option<&str>,
) -> Result<String, Status> {
    let request = BeginTurnRequest {
        user_id: new_user(),
        ..BeginTurnRequest::default()
    };
    let begun = memory.begin_turn(with(request, authorization)).await?;
    Ok(begun.into_inner().conversation.unwrap().id)
}

/// Reads a conversation.
pub(crate) async fn read(
    memory: &mut Memory,
    id: &str,
    authorization: Option<&str>,
) -> Result<(), Status> {
    let request = GetConversationRequest {
        conversation_id: id.to_owned(),
        ..GetConversationRequest::default()
    };
    let read = memory.get_conversation(with(request, authorization)).await;
    read.map(drop)
}

/// A request with a value of the header `authorization`.
pub(crate) fn with<T>(message: T, authorization: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(value) = authorization {
        let value = value.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Code, message and encoded details of a status.
pub(crate) fn contents_of(status: &Status) -> (Code, String, Vec<u8>) {
    let details = status.details().to_vec();
    (status.code(), status.message().to_owned(), details)
}

/// Whether reflection lists the services to a caller.
pub(crate) async fn is_reflected(channel: Channel, authorization: Option<&str>) -> bool {
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let request = with(tokio_stream::once(list), authorization);
    let mut client = ServerReflectionClient::new(channel);
    let Ok(answers) = client.server_reflection_info(request).await else {
        return false;
    };
    answers.into_inner().next().await.unwrap().is_ok()
}
