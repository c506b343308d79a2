use opentelemetry::{KeyValue, metrics::Counter};
use tracing::{info, warn};

use crate::{instrumentation, log_throttle::LogThrottle, store::operation_error::Cause};

/// What a read that may use the replica was answered from, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The replica was read.
    Replica,
    /// The primary was read, because this process has just written for the same user or to the same
    /// conversation.
    RecentWrite,
    /// The primary was read, because the replica lags too much.
    Behind,
    /// The primary was read, because the replica cannot be used.
    Unavailable,
    /// The primary was read, because there was no connection to the replica in time: reads use all of them, or a
    /// connection is being opened at this moment.
    Busy,
    /// The primary was read, because the replica has canceled the statement, which needed rows that it
    /// had to remove.
    Conflict,
    /// The primary was read, because the replica does not have the conversation.
    NotFound,
}

impl Outcome {
    const ALL: [Self; 7] = [
        Self::Replica,
        Self::RecentWrite,
        Self::Behind,
        Self::Unavailable,
        Self::Busy,
        Self::Conflict,
        Self::NotFound,
    ];

    fn attribute(self) -> KeyValue {
        let name = match self {
            Self::Replica => "replica",
            Self::RecentWrite => "recent_write",
            Self::Behind => "behind",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Conflict => "conflict",
            Self::NotFound => "not_found",
        };
        KeyValue::new("outcome", name)
    }
}

/// Counts the reads, and logs when the replica begins or ceases to be used.
#[derive(Debug)]
pub(super) struct Instruments {
    reads: Counter<u64>,
    throttle: LogThrottle,
}

impl Instruments {
    pub(super) fn new() -> Self {
        let reads = instrumentation::meter()
            .u64_counter("conversation_memory.replica.reads")
            .with_unit("{read}")
            .with_description(
                "Reads that may use the replica, by what they were answered from: the replica, or \
                 the primary for the reason that the outcome names.",
            )
            .build();
        for outcome in Outcome::ALL {
            instrumentation::export_zero(&reads, &[outcome.attribute()]);
        }
        Self {
            reads,
            throttle: LogThrottle::new(),
        }
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.reads.add(1, &[outcome.attribute()]);
    }

    /// Logs that the replica is not used.
    pub(super) fn log_unusable(&self, cause: &Cause) {
        if let Some(suppressed) = self.throttle.admit(&cause.to_string()) {
            warn!(
                setting = "DATABASE_READ_URL",
                %cause,
                suppressed = suppressed.count(),
                "the replica is not used: reading from the primary"
            );
        }
    }

    /// Logs that one of the servers at the address is not used.
    pub(super) fn log_skipped(&self, cause: &Cause) {
        if let Some(suppressed) = self.throttle.admit("skipped") {
            warn!(
                setting = "DATABASE_READ_URL",
                %cause,
                suppressed = suppressed.count(),
                "one of the servers is not used: reading from the others or the primary"
            );
        }
    }

    /// Logs that the replica is used, after it was not.
    pub(super) fn log_usable(&self) {
        if self.throttle.admit("usable").is_some() {
            info!("listing, searching and exporting from the replica");
        }
    }
}
