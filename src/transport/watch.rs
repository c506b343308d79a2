//! Limits on time that hold whatever the peers do: a task examines all open connections
//! regularly.

use std::{convert::Infallible, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    connection_state::ConnectionState,
    open_connections::{ClosureReason, OpenConnections},
};
use crate::rejections::Limit;

/// Interval between two examinations of all connections.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time for which a peer that has responses to accept may accept none.
const MAX_STALL: Duration = Duration::from_secs(20);

/// Time after a deadline for which a response that reports the deadline may take.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// Number of ended exchanges of a connection of which a piece of the response may wait for the peer.
/// It allows a caller to leave streams unread while it uses the connection for other calls.
const MAX_UNACCEPTED: usize = 4;

/// Time without a call after which a connection is closed. Clients connect again for their next call.
const MAX_IDLE: Duration = Duration::from_mins(15);

/// The same for a connection on which no call has been accepted.
const MAX_IDLE_UNTRUSTED: Duration = Duration::from_mins(1);

/// Enforces the limits on the connections' time.
pub(super) async fn watch(connections: &OpenConnections) -> Infallible {
    let mut next = Instant::now() + INTERVAL;
    let mut is_late = false;
    loop {
        sleep_until(next).await;
        let now = Instant::now();
        let was_late = std::mem::replace(&mut is_late, now > next + INTERVAL);
        next = now + INTERVAL;
        // After a stop of the process, what peers have accepted meanwhile is noted first.
        if is_late && !was_late {
            continue;
        }
        for connection in connections.all() {
            examine(connections, &connection);
        }
    }
}

fn examine(connections: &OpenConnections, connection: &ConnectionState) {
    if connection.stalled_for() > MAX_STALL {
        return connections.close(connection, ClosureReason::Stalled);
    }
    let exchanges = connection.open_exchanges();
    let mut unaccepted = 0;
    for exchange in &exchanges {
        if exchange.is_aborted() {
            unaccepted += 1;
        } else if exchange.overdue_for() > DEADLINE_GRACE {
            if !exchange.abort() {
                // HTTP/1 has no stream that could be ended by itself.
                return connections.close(connection, ClosureReason::Overdue);
            }
            Limit::UnreadResponses.record_rejection();
        }
    }
    if unaccepted > MAX_UNACCEPTED {
        return connections.close(connection, ClosureReason::Overdue);
    }
    let max_idle = if connection.is_trusted() {
        MAX_IDLE
    } else {
        MAX_IDLE_UNTRUSTED
    };
    if exchanges.is_empty() && connection.inactive_for() > max_idle {
        connections.retire(connection, ClosureReason::Idle);
    }
}

#[cfg(test)]
mod tests;
