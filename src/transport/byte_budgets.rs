use crate::fairness::FairSemaphore;

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
}
