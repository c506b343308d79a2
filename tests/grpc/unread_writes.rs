//! A write whose response cannot be sent, because responses that are not read occupy all bytes.

use bytes::Bytes;
use conversation_memory::proto::{
    Conversation, GetConversationRequest, GetHistoryRequest, UpdateConversationRequest,
};
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use prost_types::value::Kind;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use test_support::{
    new_user,
    raw_http2::grpc_message,
    requests::{history, new_conversation, object, save_text},
    sidecar::{Form, Sidecar},
};

test_support::in_both_forms!(a_write_whose_response_cannot_be_sent_has_an_unknown_outcome);

/// Smallest valid value.
const MAX_PENDING: (&str, &str) = ("MAX_PENDING_RESPONSE_BYTES", "16777216");
/// Sizes of the unread responses. What remains is less than the response of the write.
const SIZES: [usize; 3] = [1_000_000, 200_000, 40_000];
const TITLE: &str = "A title";

async fn a_write_whose_response_cannot_be_sent_has_an_unknown_outcome(form: Form) {
    let sidecar = Sidecar::start_with(&form, &[MAX_PENDING]).await;
    let mut memory = sidecar.memory();
    let user = new_user();
    let mut unread = UnreadCalls::connect(&sidecar).await;
    for size in SIZES {
        let id = new_conversation(&mut memory, &user).await;
        save_text(&mut memory, &id, &"x".repeat(size)).await;
        let rejected = unread.fill(&history(&id)).await;
        assert_eq!(rejected.code(), Code::ResourceExhausted, "{rejected:?}");
    }

    let text = Kind::StringValue("x".repeat(60_000));
    let conversation_id = new_conversation(&mut memory, &user).await;
    let conversation = Conversation {
        id: conversation_id.clone(),
        title: TITLE.to_owned(),
        metadata: Some(object(&[("text", text)])),
        ..Conversation::default()
    };
    let request = UpdateConversationRequest {
        conversation: Some(conversation),
        ..UpdateConversationRequest::default()
    };
    let outcome = unread.call("UpdateConversation", &request).await;
    let status = outcome.expect("the response is not sent");
    assert_eq!(status.code(), Code::Unknown, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "COMMIT_OUTCOME_UNKNOWN");

    // The write was performed.
    let request = GetConversationRequest {
        conversation_id,
        ..GetConversationRequest::default()
    };
    let found = memory.get_conversation(request).await.unwrap();
    assert_eq!(found.into_inner().conversation.unwrap().title, TITLE);
}

/// A connection that accepts no data of any response.
struct UnreadCalls {
    sender: SendRequest<Bytes>,
    unread: Vec<http::Response<h2::RecvStream>>,
    address: std::net::SocketAddr,
}

impl UnreadCalls {
    async fn connect(sidecar: &Sidecar) -> Self {
        let tcp = TcpStream::connect(sidecar.address).await.unwrap();
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(0)
            .handshake(tcp)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            unread: Vec::new(),
            address: sidecar.address,
        }
    }

    /// Repeats a read until it is rejected, and returns its status.
    async fn fill(&mut self, request: &GetHistoryRequest) -> Status {
        loop {
            if let Some(status) = self.call("GetHistory", request).await {
                return status;
            }
        }
    }

    /// Makes a call, and returns its status if it has no response.
    async fn call(&mut self, method: &str, request: &impl Message) -> Option<Status> {
        let path = format!("/conversation_memory.v1.ConversationMemory/{method}");
        let head = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        self.sender = self.sender.clone().ready().await.unwrap();
        let (response, mut stream) = self.sender.send_request(head, false).unwrap();
        let body = grpc_message(&request.encode_to_vec()).freeze();
        stream.send_data(body, true).unwrap();
        let response = response.await.unwrap();
        let status = Status::from_header_map(response.headers() as &HeaderMap);
        if status.is_none() {
            self.unread.push(response);
        }
        status
    }
}
