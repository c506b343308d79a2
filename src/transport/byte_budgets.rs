use opentelemetry::metrics::Meter;

use crate::{fairness::FairSemaphore, instrumentation};

/// Limits on the bytes of all requests and of all responses in progress.
#[derive(Debug)]
pub struct ByteBudgets {
    /// Bytes of requests that have been received and whose response is not complete.
    pub(super) requests: FairSemaphore,
    /// Bytes of responses that peers have not accepted.
    pub(super) responses: FairSemaphore,
    /// Number of bytes of one request that are counted at most. A stream occupies no more than
    /// one of its messages.
    pub(super) max_request: usize,
}

impl ByteBudgets {
    /// Creates the limits, in bytes. `max_request` is the limit on one request.
    pub fn new(requests: usize, responses: usize, max_request: usize) -> Self {
        Self {
            requests: FairSemaphore::new(requests),
            responses: FairSemaphore::new(responses),
            max_request,
        }
    }

    /// Bytes of responses that peers have not accepted.
    pub fn responses(&self) -> FairSemaphore {
        self.responses.clone()
    }

    /// Creates the limits as [`Self::new`] does, with metrics.
    pub fn with_metrics(requests: usize, responses: usize, max_request: usize) -> Self {
        let meter = instrumentation::meter();
        let budgets = Self::new(requests, responses, max_request);
        register_gauge(
            &meter,
            "conversation_memory.requests.pending_size",
            "Bytes of the requests in progress. MAX_PENDING_REQUEST_BYTES is the limit.",
            &budgets.requests,
        );
        register_gauge(
            &meter,
            "conversation_memory.responses.pending_size",
            "Bytes of the responses that callers have not read. MAX_PENDING_RESPONSE_BYTES is the limit.",
            &budgets.responses,
        );
        budgets
    }
}

fn register_gauge(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    bytes: &FairSemaphore,
) {
    let bytes = bytes.clone();
    meter
        .u64_observable_gauge(name)
        .with_unit("By")
        .with_description(description)
        .with_callback(move |gauge| gauge.observe(bytes.used() as u64, &[]))
        .build();
}
