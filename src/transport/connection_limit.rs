use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::instrumentation;

/// Limit on the open connections of all TCP listeners together, including those whose TLS
/// handshake is not complete, and the same limit again for Unix sockets, so that TCP peers
/// cannot exhaust the quota of the pod's own processes.
///
/// A connection beyond the limit is closed at once: its peer can then try another server or
/// try again later, and the connection allocates no memory here. Clones share the limit.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    max: usize,
    tcp: Arc<Semaphore>,
    unix: Arc<Semaphore>,
    refused: Option<Counter<u64>>,
}

/// Permit of one open connection, which is returned when it is dropped.
pub(super) type ConnectionPermit = OwnedSemaphorePermit;

/// Kind of socket of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum SocketKind {
    /// A TCP socket.
    Tcp,
    /// A Unix socket.
    Unix,
}

/// Reason for which a connection was closed before it was served.
#[derive(Clone, Copy, Debug)]
pub(super) enum RefusalReason {
    /// The limit was reached.
    Limit,
    /// The TLS handshake failed or took too long.
    Handshake,
}

impl ConnectionLimit {
    /// Creates a limit of `max` connections without metrics.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            tcp: Arc::new(Semaphore::new(max)),
            unix: Arc::new(Semaphore::new(max)),
            refused: None,
        }
    }

    /// Creates a limit of `max` connections with metrics of the open and the refused connections.
    pub fn with_metrics(max: usize) -> Self {
        let meter = instrumentation::meter();
        let limit = Self {
            refused: Some(refused_counter(&meter)),
            ..Self::new(max)
        };
        limit.register_gauges(&meter);
        limit
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Acquires a permit for one more connection. `None` if the limit is reached.
    pub(super) fn try_acquire(&self, kind: SocketKind) -> Option<ConnectionPermit> {
        let permits = match kind {
            SocketKind::Tcp => &self.tcp,
            SocketKind::Unix => &self.unix,
        };
        let permit = Arc::clone(permits).try_acquire_owned().ok();
        if permit.is_none() {
            self.count_refused(RefusalReason::Limit);
        }
        permit
    }

    pub(super) fn count_refused(&self, reason: RefusalReason) {
        if let Some(refused) = &self.refused {
            refused.add(1, &[KeyValue::new("reason", reason.as_str())]);
        }
    }

    fn register_gauges(&self, meter: &Meter) {
        let (permits, max) = ([&self.tcp, &self.unix].map(Arc::clone), self.max);
        meter
            .u64_observable_gauge("conversation_memory.connections.active")
            .with_unit("{connection}")
            .with_description("Open connections to the API.")
            .with_callback(move |gauge| {
                let open = permits
                    .each_ref()
                    .map(|permits| max - permits.available_permits());
                gauge.observe(open.iter().sum::<usize>() as u64, &[]);
            })
            .build();
        meter
            .u64_observable_gauge("conversation_memory.connections.limit")
            .with_unit("{connection}")
            .with_description("Limit on open connections over TCP, and the same limit over Unix sockets. Connections beyond it are closed.")
            .with_callback(move |gauge| gauge.observe(max as u64, &[]))
            .build();
    }
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

fn refused_counter(meter: &Meter) -> Counter<u64> {
    let refused = meter
        .u64_counter("conversation_memory.connections.refused")
        .with_unit("{connection}")
        .with_description("Connections closed before they were served, by reason.")
        .build();
    for reason in RefusalReason::ALL {
        instrumentation::export_zero(&refused, &[KeyValue::new("reason", reason.as_str())]);
    }
    refused
}
