use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use opentelemetry::trace::{SpanId, Status};
use tonic::body::Body;
use tower::{Layer as _, Service as _, service_fn};

use super::Observe;
use crate::{
    call::{self, Span},
    domain::ConversationId,
    telemetry::{
        TracingConfig,
        testing::{self, SpanData},
    },
};

const KEYS: [&str; 4] = [
    "langsmith.metadata.conversation_id",
    "langsmith.metadata.thread_id",
    "session.id",
    "gen_ai.conversation.id",
];

/// A response stream that creates a span for each message, and sets the conversation of the
/// call only with the first one.
#[derive(Clone)]
struct Messages {
    conversation: ConversationId,
    frames: VecDeque<Result<Bytes, HeaderMap>>,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        drop(Span::of_use_case("work"));
        let frame = self.frames.pop_front();
        call::set_conversation(self.conversation);
        Poll::Ready(frame.map(|frame| Ok(frame.map_or_else(Frame::trailers, Frame::data))))
    }
}

fn messages(conversation: ConversationId, grpc_status: &'static str) -> Messages {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", grpc_status.parse().unwrap());
    let message = || Ok(Bytes::from_static(b"message"));
    Messages {
        conversation,
        frames: [message(), message(), Err(trailers)].into(),
    }
}

/// Calls a method with a response stream and reads `frames` frames of it.
async fn call(stream: Messages, frames: usize) -> Vec<SpanData> {
    let (exported, tracer) = testing::tracer(TracingConfig {
        follows_caller: true,
        allows_caller_project: false,
        captures_content: false,
    });
    let observe = Observe::new(tracer);
    let mut service = observe.layer(service_fn(move |_| {
        let body = Body::new(stream.clone());
        async move { Ok::<_, Infallible>(Response::new(body)) }
    }));
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/conversation_memory.v1.ConversationMemory/ListMessages"
        .parse()
        .unwrap();
    let mut body = service.call(request).await.unwrap().into_body();
    for _ in 0..frames {
        poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    }
    assert_eq!(
        exported.spans().len(),
        0,
        "the spans of a call are exported together"
    );
    drop(body);
    exported.spans().clone()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

fn root(spans: &[SpanData]) -> &SpanData {
    let mut roots = spans.iter().filter(|s| s.parent_span_id == SpanId::INVALID);
    let root = roots.next().unwrap();
    assert!(roots.next().is_none());
    root
}

#[tokio::test]
async fn spans_of_a_stream_have_the_conversation_and_end_with_the_last_message() {
    let conversation = ConversationId::from_uuid(uuid::Uuid::from_u128(7));
    let spans = call(messages(conversation, "0"), 4).await;
    assert_eq!(spans.len(), 5, "one per frame and one for the call");
    for span in &spans {
        for key in KEYS {
            assert_eq!(attribute(span, key), Some(conversation.to_string()));
        }
        assert_eq!(attribute(span, "langsmith.span.kind").unwrap(), "retriever");
        assert_eq!(attribute(span, "langsmith.metadata.session_id"), None);
    }
    let root = root(&spans);
    assert_eq!(attribute(root, "rpc.response.status_code").unwrap(), "OK");
    for span in &spans {
        assert!(span.end_time <= root.end_time);
    }
}

#[tokio::test]
async fn a_failed_stream_has_an_error_status() {
    let conversation = ConversationId::from_uuid(uuid::Uuid::from_u128(7));
    let spans = call(messages(conversation, "14"), 3).await;
    let root = root(&spans);
    assert_eq!(
        attribute(root, "rpc.response.status_code").unwrap(),
        "UNAVAILABLE"
    );
    assert!(matches!(root.status, Status::Error { .. }));
}

#[tokio::test]
async fn a_dropped_stream_is_cancelled() {
    let conversation = ConversationId::from_uuid(uuid::Uuid::from_u128(7));
    let spans = call(messages(conversation, "0"), 1).await;
    let root = root(&spans);
    assert_eq!(
        attribute(root, "rpc.response.status_code").unwrap(),
        "CANCELLED"
    );
    assert_eq!(attribute(root, KEYS[0]), Some(conversation.to_string()));
    assert_eq!(root.status, Status::Unset);
}
