use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use tokio::time::Instant;

use crate::{instrumentation, store::StoreError};

/// Time for which one success outweighs failures: an overloaded store, whose operations partly
/// fail, is available.
const SUCCESS_LIFETIME: Duration = Duration::from_secs(2);

/// Time for which one failure is evidence: a sidecar without calls does not report an outage that
/// may have ended.
const FAILURE_LIFETIME: Duration = Duration::from_mins(1);

/// Kind of access of an operation. A store that is read-only or full serves reads only.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    const ALL: [Self; 2] = [Self::Read, Self::Write];

    /// Returns the access of an operation. `None` if it has a limit of its own, beyond which it
    /// fails although the store is available.
    pub(super) fn of(operation: &str) -> Option<Self> {
        match operation {
            "import" | "snapshot" => None,
            "get"
            | "list"
            | "newest"
            | "blobs"
            | "search"
            | "find_containing"
            | "list_branches"
            | "list_namespaces"
            | "pending_invalidations"
            | "get_checkpoint"
            | "get_contents"
            | "list_checkpoints"
            | "find_runs"
            | "conversation_of_session" => Some(Self::Read),
            _ => Some(Self::Write),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Whether the store serves reads and writes, by the outcomes of the latest operations.
///
/// A ratio of failed calls would show an outage late: calls that wait for their time limit are
/// few, compared with those that succeeded in the minutes before.
#[derive(Debug)]
pub(super) struct StoreAvailability {
    created: Instant,
    reads: Outcomes,
    writes: Outcomes,
    /// Time of the latest write that failed because the disk is full, like those of [`Outcomes`].
    found_full: AtomicU64,
}

/// Times of the latest success and the latest failure, in milliseconds since the creation; 0 if
/// there was none.
#[derive(Debug, Default)]
struct Outcomes {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl StoreAvailability {
    /// Creates a state without operations, and the gauges that report it until it is dropped.
    pub(super) fn new() -> Arc<Self> {
        let availability = Arc::new(Self {
            created: Instant::now(),
            reads: Outcomes::default(),
            writes: Outcomes::default(),
            found_full: AtomicU64::new(0),
        });
        register_gauges(&availability);
        availability
    }

    /// Records the outcome of an operation. A rejected request is a success of the store, and a
    /// defect is not evidence.
    pub(super) fn record<T>(&self, access: Access, outcome: &Result<T, StoreError>) {
        let outcomes = self.outcomes(access);
        if let Err(StoreError::Full(_)) = outcome {
            self.found_full.store(self.now(), Ordering::Relaxed);
        }
        let latest = match outcome {
            Err(StoreError::Internal(_)) => return,
            Err(
                StoreError::NotFound
                | StoreError::MessageNotFound { .. }
                | StoreError::Conflict { .. }
                | StoreError::BeyondEnd { .. }
                | StoreError::AlreadyExists(_),
            )
            | Ok(_) => &outcomes.succeeded,
            // Unavailable, of unknown outcome, or full.
            Err(_) => &outcomes.failed,
        };
        latest.store(self.now(), Ordering::Relaxed);
    }

    fn is_available(&self, access: Access) -> bool {
        let outcomes = self.outcomes(access);
        let succeeded = outcomes.succeeded.load(Ordering::Relaxed);
        let failed = outcomes.failed.load(Ordering::Relaxed);
        let is_failing = failed > succeeded && self.elapsed(failed) < FAILURE_LIFETIME;
        let has_succeeded = succeeded > 0 && self.elapsed(succeeded) < SUCCESS_LIFETIME;
        !is_failing || has_succeeded
    }

    /// Returns whether the disk was full at the latest write. A write that needs no more room can
    /// succeed in between, and does not end that at once.
    fn is_full(&self) -> bool {
        let full = self.found_full.load(Ordering::Relaxed);
        let succeeded = self.writes.succeeded.load(Ordering::Relaxed);
        let is_latest = full > succeeded || self.elapsed(full) < SUCCESS_LIFETIME;
        full > 0 && is_latest && self.elapsed(full) < FAILURE_LIFETIME
    }

    fn elapsed(&self, at: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(at))
    }

    fn outcomes(&self, access: Access) -> &Outcomes {
        match access {
            Access::Read => &self.reads,
            Access::Write => &self.writes,
        }
    }

    fn now(&self) -> u64 {
        let elapsed = self.created.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1)
    }
}

fn register_gauges(availability: &Arc<StoreAvailability>) {
    let meter = instrumentation::meter();
    let full: Weak<StoreAvailability> = Arc::downgrade(availability);
    meter
        .u64_observable_gauge("conversation_memory.store.full")
        .with_description("1 while writes fail because the disk of the store is full.")
        .with_callback(move |gauge| {
            if let Some(availability) = full.upgrade() {
                gauge.observe(u64::from(availability.is_full()), &[]);
            }
        })
        .build();
    let availability = Arc::downgrade(availability);
    meter
        .u64_observable_gauge("conversation_memory.store.available")
        .with_description(
            "1 while the store serves the operations of the attribute, 0 while they fail.",
        )
        .with_callback(move |gauge| {
            let Some(availability) = availability.upgrade() else {
                return;
            };
            for access in Access::ALL {
                let value = u64::from(availability.is_available(access));
                gauge.observe(value, &[KeyValue::new("operation", access.name())]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn failed() -> Result<(), StoreError> {
        Err(StoreError::Unavailable("refused".into()))
    }

    /// Availability of reads and of writes.
    fn state(store: &StoreAvailability) -> [bool; 2] {
        Access::ALL.map(|access| store.is_available(access))
    }

    #[test]
    fn the_regular_look_at_pending_invalidations_is_no_evidence_of_writes() {
        let access = Access::of("pending_invalidations");
        assert!(matches!(access, Some(Access::Read)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_without_operations_is_available() {
        assert_eq!(state(&StoreAvailability::new()), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_serves_only_reads_is_not_available_to_writes() {
        let store = StoreAvailability::new();
        store.record(Access::Read, &Ok(()));
        store.record(Access::Write, &failed());
        assert_eq!(state(&store), [true, false]);
        advance(SUCCESS_LIFETIME).await;
        let outcome: Result<(), _> = Err(StoreError::OutcomeUnknown("lost".into()));
        store.record(Access::Read, &outcome);
        assert_eq!(state(&store), [false, false]);
        store.record(Access::Write, &Ok(()));
        assert_eq!(state(&store), [false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_overloaded_store_and_a_rejected_request_are_no_outage() {
        let store = StoreAvailability::new();
        for _ in 0..10 {
            store.record(Access::Write, &Ok(()));
            advance(Duration::from_secs(1)).await;
            store.record(Access::Write, &failed());
            assert_eq!(state(&store), [true, true]);
        }
        advance(SUCCESS_LIFETIME).await;
        assert_eq!(state(&store), [true, false]);
        let rejected: Result<(), _> = Err(StoreError::NotFound);
        store.record(Access::Write, &rejected);
        assert_eq!(state(&store), [true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_is_reported_until_a_write_succeeds() {
        let store = StoreAvailability::new();
        assert!(!store.is_full());
        let full: Result<(), _> = Err(StoreError::Full("full".into()));
        store.record(Access::Write, &full);
        assert!(store.is_full());
        assert_eq!(state(&store), [true, false]);
        advance(SUCCESS_LIFETIME).await;
        store.record(Access::Read, &Ok(()));
        assert!(store.is_full());
        store.record(Access::Write, &Ok(()));
        assert!(!store.is_full());
        store.record(Access::Write, &full);
        advance(FAILURE_LIFETIME).await;
        assert!(!store.is_full());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sidecar_does_not_report_an_old_failure() {
        let store = StoreAvailability::new();
        store.record(Access::Write, &failed());
        advance(FAILURE_LIFETIME.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(state(&store), [true, false]);
        advance(Duration::from_millis(1)).await;
        assert_eq!(state(&store), [true, true]);
    }
}
