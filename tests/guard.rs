//! The guard: panics in handlers and in streams, deadlines, and the limit on concurrent calls.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, and so do the handlers under test"
)]

use std::{
    convert::Infallible,
    future::{Ready, pending, ready},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use conversation_memory::rpc::guard::{Guard, ServingState};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, body::Body};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

fn guard(state: ServingState) -> (Guard, watch::Sender<ServingState>, TaskTracker) {
    let serving = watch::Sender::new(state);
    let calls = TaskTracker::new();
    let limit = Duration::from_secs(5);
    let guard = Guard::new(serving.subscribe(), 1, limit, calls.clone());
    (guard, serving, calls)
}

fn request() -> Request<Body> {
    Request::builder()
        .uri("/package.Service/Method")
        .body(Body::empty())
        .unwrap()
}

fn status_of(response: &Response<Body>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_panic_in_a_handler_is_internal() {
    let (guard, _serving, calls) = guard(ServingState::Serving);
    let mut service = guard.layer(service_fn(
        async |_: Request<Body>| -> Result<Response<Body>, Infallible> { panic!("message text") },
    ));
    // Twice, since the first call must release its permit.
    for _ in 0..2 {
        let response = service.call(request()).await.unwrap();
        assert_eq!(status_of(&response), Code::Internal);
        let status = Status::from_header_map(response.headers()).unwrap();
        assert!(!status.message().contains("message text"));
    }
    calls.close();
    calls.wait().await;
}

#[tokio::test]
async fn a_panic_in_a_stream_ends_it_with_internal() {
    let (guard, _serving, calls) = guard(ServingState::Serving);
    let mut service = guard.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::new(Panicking { sent: false })))
    }));
    let response = service.call(request()).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap();
    assert_eq!(body.to_bytes(), "one");
    let status = Status::from_header_map(&trailers).unwrap();
    assert_eq!(status.code(), Code::Internal);
    calls.close();
    calls.wait().await;
}

#[tokio::test(start_paused = true)]
async fn ends_a_stream_at_its_deadline() {
    let (guard, _serving, _calls) = guard(ServingState::Serving);
    let mut service = guard.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new(Body::new(Silent)))
    }));
    let response = service.call(request()).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let status = Status::from_header_map(body.trailers().unwrap()).unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn ends_a_handler_at_its_deadline() {
    let (guard, _serving, _calls) = guard(ServingState::Serving);
    let mut service = guard.layer(service_fn(async |_: Request<Body>| {
        pending::<Result<Response<Body>, Infallible>>().await
    }));
    let mut hurried = request();
    hurried
        .headers_mut()
        .insert("grpc-timeout", "20m".parse().unwrap());
    let response = service.call(hurried).await.unwrap();
    assert_eq!(status_of(&response), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_call_counts_until_its_last_byte() {
    let (guard, _serving, _calls) = guard(ServingState::Serving);
    let service = guard.layer(service_fn(answer));
    let first = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(status_of(&first), Code::Ok);
    let second = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(status_of(&second), Code::ResourceExhausted);
    let health = Request::builder().uri("/grpc.health.v1.Health/Check");
    let health = health.body(Body::empty()).unwrap();
    let health = service.clone().oneshot(health).await.unwrap();
    assert_eq!(status_of(&health), Code::Ok);
    drop(first);
    let third = service.oneshot(request()).await.unwrap();
    assert_eq!(status_of(&third), Code::Ok);
}

#[tokio::test]
async fn rejects_calls_before_the_store_is_ready() {
    let (guard, serving, _calls) = guard(ServingState::Starting);
    let service = guard.layer(service_fn(answer));
    let early = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(status_of(&early), Code::Unavailable);
    serving.send_replace(ServingState::Draining);
    let late = service.oneshot(request()).await.unwrap();
    assert_eq!(status_of(&late), Code::Ok);
}

fn answer(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Body::new(Silent))))
}

/// A stream that sends one frame and then panics.
struct Panicking {
    sent: bool,
}

impl http_body::Body for Panicking {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        assert!(!self.sent, "message text");
        self.sent = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one")))))
    }
}

/// A stream that never sends a frame.
struct Silent;

impl http_body::Body for Silent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Pending
    }
}
