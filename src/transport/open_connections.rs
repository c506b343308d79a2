use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

use super::{
    connection_state::{ConnectionState, SocketKind},
    overhead::OverheadPace,
    unstarted::UnstartedExchanges,
};
use crate::{fairness::ShareKey, instrumentation, rejections::Limit};

/// Inactivity after which a connection whose calls have been accepted is closed in favor of a new
/// one. It excludes connections between the calls of a turn.
const MIN_INACTIVITY: Duration = Duration::from_secs(10);

/// Limit on the open connections of all TCP listeners together, including those whose TLS
/// handshake is not complete, and the same limit again for Unix sockets, so that TCP peers
/// cannot exhaust the quota of the pod's own processes. Clones share the limit.
///
/// A new connection beyond the limit replaces another one, so that neither connections without an
/// accepted call nor those of one caller can keep others out:
/// 1. the longest inactive one without an accepted call, if these occupy a quarter, which is what new
///    connections need until their first call;
/// 2. that of the caller with the most connections, if it has more than its share;
/// 3. the longest inactive one without an accepted call;
/// 4. one that has been inactive for ten seconds.
///
/// Connections with a call in progress are not replaced. If there is no other, the new connection is
/// closed at once: its peer can then try another server or try again later, and it allocates no
/// memory here. Connections without an accepted call never occupy more than three quarters.
#[derive(Clone, Debug)]
pub struct OpenConnections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    last_id: AtomicU64,
    open: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    unstarted: UnstartedExchanges,
    overhead: OverheadPace,
    metrics: Option<Metrics>,
}

#[derive(Debug)]
struct Metrics {
    refused: Counter<u64>,
    closed: Counter<u64>,
}

/// Reference to [`OpenConnections`] that does not prolong them.
#[derive(Clone, Debug)]
pub(super) struct WeakOpenConnections(Weak<Shared>);

impl WeakOpenConnections {
    /// Returns the connections that are open at present.
    pub(super) fn all(&self) -> Vec<Arc<ConnectionState>> {
        let shared = self.0.upgrade().map(OpenConnections);
        shared.map_or_else(Vec::new, |connections| connections.all())
    }
}

/// Permit of one open connection, which is returned when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    pub(super) state: Arc<ConnectionState>,
    connections: OpenConnections,
}

/// Reason for which a connection was closed before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalReason {
    /// The limit was reached.
    Limit,
    /// The TLS handshake failed or took too long.
    Handshake,
}

/// Reason for which an open connection was closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum ClosureReason {
    /// It had no calls for a long time.
    Idle,
    /// A new connection has replaced it.
    Replaced,
    /// Its peer did not accept responses.
    Stalled,
    /// A response on it was not accepted within the time limit of its call.
    Overdue,
}

impl OpenConnections {
    /// Creates a limit of `max` connections without metrics.
    pub fn new(max: usize) -> Self {
        Self::create(max, None)
    }

    /// Creates a limit of `max` connections with metrics of the open, the refused and the closed
    /// connections.
    pub fn with_metrics(max: usize) -> Self {
        let meter = instrumentation::meter();
        let limit = Self::create(max, Some(Metrics::new(&meter)));
        limit.register_gauges(&meter);
        limit
    }

    fn create(max: usize, metrics: Option<Metrics>) -> Self {
        Self(Arc::new(Shared {
            max,
            last_id: AtomicU64::new(0),
            open: Mutex::default(),
            unstarted: UnstartedExchanges::default(),
            overhead: OverheadPace::new(),
            metrics,
        }))
    }

    pub(super) fn max(&self) -> usize {
        self.0.max
    }

    /// Acquires a permit for one more connection, which may close another one. `None` if the
    /// limit is reached and no connection is inactive.
    pub(super) fn try_acquire(&self, kind: SocketKind) -> Option<ConnectionPermit> {
        let mut open = self.open();
        let same_kind = Connections::of(&open, kind);
        let replaced = if same_kind.is_limit_reached(self.0.max) {
            let Some(replaced) = same_kind.to_be_replaced(self.0.max) else {
                drop(open);
                self.count_refused(RefusalReason::Limit);
                return None;
            };
            open.remove(&replaced.id);
            Some(replaced)
        } else {
            None
        };
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let others = WeakOpenConnections(Arc::downgrade(&self.0));
        let unstarted = self.0.unstarted.of_new_connection();
        let overhead = self.0.overhead.of_new_connection();
        let state = ConnectionState::new(id, kind, others, unstarted, overhead);
        open.insert(id, Arc::clone(&state));
        drop(open);
        if let Some(replaced) = replaced {
            self.close(&replaced, ClosureReason::Replaced);
        }
        Some(ConnectionPermit {
            state,
            connections: self.clone(),
        })
    }

    /// Returns the connections that are open at present.
    pub(super) fn all(&self) -> Vec<Arc<ConnectionState>> {
        self.open().values().map(Arc::clone).collect()
    }

    /// Closes a connection at once.
    pub(super) fn close(&self, connection: &ConnectionState, reason: ClosureReason) {
        if !connection.closed.is_cancelled() {
            connection.closed.cancel();
            self.count_closed(reason);
        }
    }

    /// Closes a connection after its exchanges.
    pub(super) fn retire(&self, connection: &ConnectionState, reason: ClosureReason) {
        if !connection.retired.is_cancelled() {
            connection.retired.cancel();
            self.count_closed(reason);
        }
    }

    pub(super) fn count_refused(&self, reason: RefusalReason) {
        if let Some(metrics) = &self.0.metrics {
            metrics.refused.add(1, &[attribute(reason.as_str())]);
            if reason == RefusalReason::Limit {
                Limit::Connections.record_rejection();
            }
        }
    }

    fn count_closed(&self, reason: ClosureReason) {
        if let Some(metrics) = &self.0.metrics {
            metrics.closed.add(1, &[attribute(reason.as_str())]);
            match reason {
                ClosureReason::Replaced => Limit::Connections.record_rejection(),
                ClosureReason::Stalled | ClosureReason::Overdue => {
                    Limit::UnreadResponses.record_rejection();
                }
                // No caller loses anything.
                ClosureReason::Idle => {}
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register_gauges(&self, meter: &Meter) {
        let (limit, max) = (self.clone(), self.0.max);
        meter
            .u64_observable_gauge("conversation_memory.connections.active")
            .with_unit("{connection}")
            .with_description("Open connections to the API.")
            .with_callback(move |gauge| gauge.observe(limit.open().len() as u64, &[]))
            .build();
        meter
            .u64_observable_gauge("conversation_memory.connections.limit")
            .with_unit("{connection}")
            .with_description("Limit on open connections over TCP, and the same limit over Unix sockets. Connections beyond it replace inactive ones, or are closed.")
            .with_callback(move |gauge| gauge.observe(max as u64, &[]))
            .build();
    }
}

/// Open connections of one kind.
struct Connections<'a> {
    untrusted: Vec<&'a Arc<ConnectionState>>,
    /// Connections on which a call has been accepted, by their caller.
    trusted: Vec<(ShareKey, &'a Arc<ConnectionState>)>,
}

impl<'a> Connections<'a> {
    fn of(open: &'a HashMap<u64, Arc<ConnectionState>>, kind: SocketKind) -> Self {
        let (mut untrusted, mut trusted) = (Vec::new(), Vec::new());
        for connection in open.values().filter(|it| it.kind == kind) {
            match connection.caller() {
                None => untrusted.push(connection),
                Some(caller) => trusted.push((caller, connection)),
            }
        }
        Self { untrusted, trusted }
    }

    fn is_limit_reached(&self, max: usize) -> bool {
        let untrusted = self.untrusted.len();
        untrusted + self.trusted.len() >= max || untrusted >= max - max / 4
    }

    /// Returns the connection that a new one replaces.
    fn to_be_replaced(&self, max: usize) -> Option<Arc<ConnectionState>> {
        let untrusted = || longest_inactive(self.untrusted.iter().copied());
        if self.untrusted.len() >= (max / 4).max(1) {
            return untrusted();
        }
        let inactive = || {
            self.unused(None)
                .filter(|it| it.inactive_for() >= MIN_INACTIVITY)
        };
        self.caller_above_share(max)
            .and_then(|caller| longest_inactive(self.unused(Some(caller))))
            .or_else(untrusted)
            .or_else(|| longest_inactive(inactive()))
    }

    /// Returns the caller with the most connections if it has more than its share, which is
    /// that of each caller if there were one more.
    fn caller_above_share(&self, max: usize) -> Option<ShareKey> {
        let mut counts = HashMap::<ShareKey, usize>::new();
        for (caller, _) in &self.trusted {
            *counts.entry(*caller).or_default() += 1;
        }
        let share = (max / (counts.len() + 1)).max(1);
        let (caller, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count > share).then_some(caller)
    }

    /// Connections without a call in progress, of one caller or of all.
    fn unused(&self, of: Option<ShareKey>) -> impl Iterator<Item = &'a Arc<ConnectionState>> {
        let of_caller = move |caller: &ShareKey| of.is_none_or(|of| of == *caller);
        let connections = self.trusted.iter();
        connections
            .filter(move |(caller, connection)| of_caller(caller) && !connection.is_in_use())
            .map(|(_, connection)| *connection)
    }
}

fn longest_inactive<'a>(
    connections: impl Iterator<Item = &'a Arc<ConnectionState>>,
) -> Option<Arc<ConnectionState>> {
    // Connections that began in the same millisecond are ordered by their numbers.
    connections
        .max_by_key(|it| (it.inactive_for(), std::cmp::Reverse(it.id)))
        .map(Arc::clone)
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open().remove(&self.state.id);
    }
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        let refused = meter
            .u64_counter("conversation_memory.connections.refused")
            .with_unit("{connection}")
            .with_description("Connections closed before they were served, by reason.")
            .build();
        for reason in RefusalReason::ALL {
            instrumentation::export_zero(&refused, &[attribute(reason.as_str())]);
        }
        let closed = meter
            .u64_counter("conversation_memory.connections.closed")
            .with_unit("{connection}")
            .with_description("Open connections that the server has closed, by reason.")
            .build();
        for reason in ClosureReason::ALL {
            instrumentation::export_zero(&closed, &[attribute(reason.as_str())]);
        }
        Self { refused, closed }
    }
}

fn attribute(reason: &'static str) -> KeyValue {
    KeyValue::new("reason", reason)
}

impl RefusalReason {
    const ALL: [Self; 2] = [Self::Limit, Self::Handshake];

    fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Handshake => "handshake",
        }
    }
}

impl ClosureReason {
    const ALL: [Self; 4] = [Self::Idle, Self::Replaced, Self::Stalled, Self::Overdue];

    fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Replaced => "replaced",
            Self::Stalled => "stalled",
            Self::Overdue => "overdue",
        }
    }
}

#[cfg(test)]
mod tests;
