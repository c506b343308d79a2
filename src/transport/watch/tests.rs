use std::{pin::pin, sync::Arc};

use futures_util::FutureExt as _;
use tokio::time::{Instant, advance};

use super::*;
use crate::transport::{
    byte_budgets::ByteBudgets, connection_state::SocketKind, exchange::Exchange,
    open_connections::ConnectionPermit,
};

/// Time limit of the exchanges.
const LIMIT: Duration = Duration::from_mins(1);

struct Fixture {
    connections: OpenConnections,
    permit: ConnectionPermit,
}

impl Fixture {
    fn new() -> Self {
        let connections = OpenConnections::new(10);
        let permit = connections.try_acquire(SocketKind::Tcp);
        let permit = permit.expect("the limit is not reached");
        Self {
            connections,
            permit,
        }
    }

    fn begin(&self) -> Exchange {
        let budgets = Arc::new(ByteBudgets::new(1 << 20, 1 << 20, 1 << 20));
        Exchange::begin(&self.permit.state, &budgets, Instant::now() + LIMIT)
    }

    /// Begins an exchange with a task that would never end.
    fn begin_stream(&self) -> Exchange {
        let exchange = self.begin();
        #[expect(clippy::disallowed_methods, reason = "the test waits for the task")]
        let stream = tokio::spawn(std::future::pending::<()>());
        exchange.set_stream(stream.abort_handle());
        exchange
    }

    async fn examine_after(&self, time: Duration) {
        advance(time).await;
        examine(&self.connections, &self.permit.state);
    }

    fn is_closed(&self) -> bool {
        self.permit.state.closed.is_cancelled()
    }

    fn is_retired(&self) -> bool {
        self.permit.state.retired.is_cancelled()
    }
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_that_accepts_no_bytes() {
    let fixture = Fixture::new();
    let _exchange = fixture.begin_stream();
    fixture.permit.state.add_piece();
    fixture.permit.state.add_piece();
    fixture.examine_after(MAX_STALL).await;
    assert!(!fixture.is_closed());
    // A byte in time is sufficient.
    fixture.permit.state.remove_piece();
    fixture.examine_after(MAX_STALL).await;
    assert!(!fixture.is_closed());
    fixture.examine_after(Duration::from_millis(1)).await;
    assert!(fixture.is_closed());
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_socket_accepts_no_bytes() {
    let fixture = Fixture::new();
    fixture.permit.state.set_blocked(true);
    fixture.examine_after(MAX_STALL / 2).await;
    fixture.permit.state.set_blocked(true);
    fixture.examine_after(MAX_STALL / 2).await;
    assert!(!fixture.is_closed());
    fixture.examine_after(Duration::from_millis(1)).await;
    assert!(fixture.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_waits_for_a_handler_is_not_stalled() {
    let fixture = Fixture::new();
    let _exchange = fixture.begin_stream();
    fixture.examine_after(LIMIT).await;
    assert!(!fixture.is_closed() && !fixture.is_retired());
}

#[tokio::test(start_paused = true)]
async fn ends_streams_after_their_deadline_and_releases_what_they_hold() {
    let fixture = Fixture::new();
    let exchange = fixture.begin_stream();
    let held = Arc::new(());
    exchange.hold(Arc::clone(&held));
    fixture.examine_after(LIMIT + DEADLINE_GRACE).await;
    assert!(!exchange.is_aborted());
    fixture.examine_after(Duration::from_millis(1)).await;
    assert!(exchange.is_aborted() && !fixture.is_closed());
    assert_eq!(Arc::strong_count(&held), 1);
    exchange.hold(Arc::clone(&held));
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_with_many_unaccepted_responses() {
    let fixture = Fixture::new();
    let _exchanges: Vec<_> = (0..=MAX_UNACCEPTED)
        .map(|_| fixture.begin_stream())
        .collect();
    fixture.examine_after(2 * LIMIT).await;
    assert!(!fixture.is_closed());
    fixture.examine_after(INTERVAL).await;
    assert!(fixture.is_closed());
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_exchange_is_no_stream() {
    let fixture = Fixture::new();
    let _exchange = fixture.begin();
    fixture.examine_after(2 * LIMIT).await;
    assert!(fixture.is_closed());
}

#[tokio::test(start_paused = true)]
async fn retires_idle_connections() {
    for (is_trusted, max) in [(false, MAX_IDLE_UNTRUSTED), (true, MAX_IDLE)] {
        let fixture = Fixture::new();
        if is_trusted {
            fixture
                .permit
                .state
                .trust(crate::fairness::ShareKey::ANONYMOUS);
        }
        fixture.examine_after(max).await;
        drop(fixture.begin());
        fixture.examine_after(max).await;
        assert!(!fixture.is_retired());
        fixture.examine_after(Duration::from_millis(1)).await;
        assert!(fixture.is_retired() && !fixture.is_closed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_process_closes_no_connection() {
    let fixture = Fixture::new();
    let mut watch = pin!(watch(&fixture.connections));
    let state = &fixture.permit.state;
    state.add_piece();
    assert!(watch.as_mut().now_or_never().is_none());
    advance(2 * MAX_STALL).await;
    assert!(watch.as_mut().now_or_never().is_none());
    assert!(!fixture.is_closed());
    // The peer has accepted it, and does not accept the next one.
    state.remove_piece();
    state.add_piece();
    advance(INTERVAL).await;
    assert!(watch.as_mut().now_or_never().is_none());
    assert!(!fixture.is_closed());
    for _ in 0..=MAX_STALL.as_millis() / INTERVAL.as_millis() {
        advance(INTERVAL).await;
        assert!(watch.as_mut().now_or_never().is_none());
    }
    assert!(fixture.is_closed());
}
