use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::instrumentation;

/// How many connections may be open at once, those of all ports together and those
/// whose handshake is not done included; and as many of Unix sockets, since nobody on the
/// network is to take a process of the pod its place. One above the limit is closed at
/// once: its peer tries again elsewhere or later, and what it could send takes no memory
/// here.
#[derive(Clone, Debug)]
pub struct Connections {
    max: usize,
    ports: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
    refused: Option<Counter<u64>>,
}

/// A place among the open connections, until it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// How a connection was made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// TCP.
    Port,
    /// A Unix socket.
    Socket,
}

/// Why a connection was not served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reason {
    /// There were too many.
    Limit,
    /// Its handshake failed or took too long.
    Handshake,
}

impl Connections {
    /// At most `max`, which no metric tells of.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            ports: Arc::new(Semaphore::new(max)),
            sockets: Arc::new(Semaphore::new(max)),
            refused: None,
        }
    }

    /// At most `max`; metrics tell how near that is.
    pub fn measured(max: usize) -> Self {
        let meter = instrumentation::meter();
        let connections = Self {
            refused: Some(refused(&meter)),
            ..Self::new(max)
        };
        connections.measure(&meter);
        connections
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn take_place(&self, over: Over) -> Option<Place> {
        let free = match over {
            Over::Port => &self.ports,
            Over::Socket => &self.sockets,
        };
        let place = Arc::clone(free).try_acquire_owned().ok();
        if place.is_none() {
            self.refuse(Reason::Limit);
        }
        place
    }

    pub(super) fn refuse(&self, reason: Reason) {
        if let Some(refused) = &self.refused {
            refused.add(1, &[KeyValue::new("reason", reason.word())]);
        }
    }

    fn measure(&self, meter: &Meter) {
        let (free, max) = ([&self.ports, &self.sockets].map(Arc::clone), self.max);
        meter
            .u64_observable_gauge("conversation_memory.connections.active")
            .with_unit("{connection}")
            .with_description("Open connections to the API.")
            .with_callback(move |gauge| {
                let taken = free.each_ref().map(|free| max - free.available_permits());
                gauge.observe(taken.iter().sum::<usize>() as u64, &[]);
            })
            .build();
        meter
            .u64_observable_gauge("conversation_memory.connections.limit")
            .with_unit("{connection}")
            .with_description("The most connections at once over TCP, and over Unix sockets; those beyond are closed.")
            .with_callback(move |gauge| gauge.observe(max as u64, &[]))
            .build();
    }
}

impl Reason {
    const ALL: [Self; 2] = [Self::Limit, Self::Handshake];

    fn word(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Handshake => "handshake",
        }
    }
}

fn refused(meter: &Meter) -> Counter<u64> {
    let refused = meter
        .u64_counter("conversation_memory.connections.refused")
        .with_unit("{connection}")
        .with_description("Connections that were closed unserved, by reason.")
        .build();
    // Shown from the start: a rate of what appears later misses the first one.
    for reason in Reason::ALL {
        refused.add(0, &[KeyValue::new("reason", reason.word())]);
    }
    refused
}
