use std::{collections::VecDeque, convert::Infallible, future::poll_fn, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use http_body::Body as _;
use tokio::time::{Instant, advance};
use tonic::Code;

use super::*;
use crate::{
    fairness::ShareKey,
    transport::{
        byte_budgets::ByteBudgets,
        connection_state::SocketKind,
        open_connections::{ConnectionPermit, OpenConnections},
    },
};

/// Size of the pieces of requests and responses, of which the budgets have eight and four.
const PIECE: usize = 64 << 10;

/// Time by which the clock of a process that runs advances between two polls.
const STEP: Duration = Duration::from_millis(10);

struct Fixture {
    permit: ConnectionPermit,
    budgets: Arc<ByteBudgets>,
}

/// Body whose remaining frames never arrive.
struct Incomplete(VecDeque<Bytes>);

impl http_body::Body for Incomplete {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.0.pop_front();
        frame.map_or(Poll::Pending, |data| {
            Poll::Ready(Some(Ok(Frame::data(data))))
        })
    }
}

impl Fixture {
    fn new() -> Self {
        let permit = OpenConnections::new(1).try_acquire(SocketKind::Tcp);
        Self {
            permit: permit.expect("the limit is not reached"),
            budgets: Arc::new(ByteBudgets::new(8 * PIECE, 4 * PIECE, 8 * PIECE)),
        }
    }

    fn begin(&self, caller: &str) -> Exchange {
        let deadline = Instant::now() + Duration::from_mins(1);
        let exchange = Exchange::begin(&self.permit.state, &self.budgets, deadline);
        exchange.set_key(ShareKey::new(caller));
        exchange
    }
}

/// Begins to read a request of some pieces, of which more is announced.
fn read(exchange: &Exchange, pieces: usize) -> Reading {
    let frames = vec![Bytes::from(vec![0; PIECE]); pieces].into();
    let exchange = exchange.clone();
    let mut body = ReceivedBody::new(Incomplete(frames), exchange, rejection);
    let mut reading = async move {
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status.code(),
                None => return Code::Ok,
            }
        }
    }
    .boxed();
    let ended = (&mut reading).now_or_never();
    Reading { reading, ended }
}

struct Reading {
    reading: BoxFuture<'static, Code>,
    ended: Option<Code>,
}

impl Reading {
    fn code(&mut self) -> Option<Code> {
        self.ended = self.ended.or_else(|| (&mut self.reading).now_or_never());
        self.ended
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the module of the calls creates statuses"
)]
fn rejection(failure: RequestFailure) -> Status {
    match failure {
        RequestFailure::Stalled { .. } => Status::deadline_exceeded("stalled"),
        _ => Status::resource_exhausted("no capacity"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_fails() {
    let fixture = Fixture::new();
    let exchange = fixture.begin("a");
    let mut request = read(&exchange, 1);
    assert!(!fixture.permit.state.is_in_use());
    // A stop of the process counts little, because the rest may have arrived meanwhile.
    advance(MAX_REQUEST_STALL).await;
    assert_eq!(request.code(), None);
    let mut waited = Duration::ZERO;
    while request.code().is_none() && waited < 2 * MAX_REQUEST_STALL {
        advance(STEP).await;
        waited += STEP;
    }
    assert_eq!(request.code(), Some(Code::DeadlineExceeded));
    assert!(waited > MAX_REQUEST_STALL / 2);
    drop(request);
    assert!(fixture.permit.state.is_in_use());
}

#[tokio::test(start_paused = true)]
async fn incomplete_requests_leave_their_bytes_to_others() {
    let fixture = Fixture::new();
    let held = [("a", 3), ("b", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1)];
    let mut requests = held.map(|(caller, pieces)| read(&fixture.begin(caller), pieces));
    let mut admitted = read(&fixture.begin("f"), 1);
    assert_eq!(admitted.code(), None);
    // The caller with two of them loses the older one.
    let displaced = Some(Code::ResourceExhausted);
    let codes = requests.each_mut().map(Reading::code);
    assert_eq!(codes, [None, displaced, None, None, None, None]);
    // A caller above its share does not take those of others.
    let mut rejected = read(&fixture.begin("f"), 1);
    assert_eq!(rejected.code(), displaced);
    assert_eq!(requests[2].code(), None);
}

#[tokio::test(start_paused = true)]
async fn calls_whose_requests_are_incomplete_are_displaced() {
    let fixture = Fixture::new();
    let calls = [fixture.begin("a"), fixture.begin("a")];
    let probe = fixture.begin("a");
    let answered = fixture.begin("c");
    answered.accept_call();
    assert!(answered.reserve_response(0));
    let mut requests = calls.each_ref().map(|call| read(call, 0));
    let mut probe = read(&probe, 0);
    let held = Arc::new(());
    for call in &calls {
        call.accept_call();
        call.hold(Arc::clone(&held));
    }
    let other = fixture.begin("b");
    assert!(!other.displace_call(false));
    assert!(other.displace_call(true));
    assert_eq!(Arc::strong_count(&held), 2);
    let codes = requests.each_mut().map(Reading::code);
    assert_eq!(codes, [Some(Code::ResourceExhausted), None]);
    // A caller loses its own only after a while.
    assert!(!calls[0].displace_call(false));
    advance(Duration::from_millis(999)).await;
    assert!(!calls[0].displace_call(false));
    advance(Duration::from_millis(1)).await;
    assert!(calls[0].displace_call(false) && !calls[0].displace_call(false));
    assert_eq!(probe.code(), None);
    // Unread responses are ended, too: this one has no stream, so that its connection is closed.
    assert!(other.displace_call(true) && !other.displace_call(true));
    assert!(fixture.permit.state.closed.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn unread_responses_leave_their_bytes_to_others() {
    let fixture = Fixture::new();
    let unread: Vec<_> = (0..5).map(|_| fixture.begin("a")).collect();
    let kept = unread.iter().filter(|it| it.reserve_response(PIECE));
    // A quarter is reserved for others.
    assert_eq!(kept.count(), 3);
    let other = ["b", "c"].map(|caller| fixture.begin(caller));
    assert!(other.iter().all(|it| it.reserve_response(PIECE)));
    let is_displaced = |it: &&Exchange| it.is_displaced();
    assert_eq!(unread.iter().filter(is_displaced).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_calls_whose_requests_were_answered_are_no_overhead() {
    let fixture = Fixture::new();
    let call = || {
        let call = fixture.begin("a");
        call.accept_call();
        call
    };
    // Until the pace is exceeded.
    let ends_without_delay = |end: fn(&Exchange)| {
        (0..200).all(|_| {
            end(&call());
            fixture.permit.state.overhead.take_delay().is_none()
        })
    };
    assert!(ends_without_delay(Exchange::respond));
    assert!(!ends_without_delay(|_| ()));
    advance(Duration::from_secs(2)).await;
    assert!(!ends_without_delay(|call| {
        call.reject_request();
        call.respond();
    }));
}
