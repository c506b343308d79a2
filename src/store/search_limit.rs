//! Limit on concurrent searches, so that they leave connections for all other calls.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::StoreError;
use crate::fairness::{FairSemaphore, Permits, ShareKey};

/// Time limit of a search in SQLite, and of one that consists of several statements.
pub(super) const SEARCH_TIME: Duration = Duration::from_secs(5);

/// Maximum time that a search waits for others to end.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Limit on concurrent searches, whose permits are shared fairly between callers.
#[derive(Debug)]
pub(super) struct SearchLimit {
    permits: FairSemaphore,
    continues_for: Duration,
    abandoned: TaskTracker,
}

impl SearchLimit {
    /// Creates the limit. A search whose caller has gone away ends after `continues_for`.
    pub(super) fn new(max: usize, continues_for: Duration) -> Self {
        Self {
            // One caller with many long searches must not make others wait.
            permits: FairSemaphore::with_reserve(max, max / 2),
            continues_for,
            abandoned: TaskTracker::new(),
        }
    }

    /// Waits for a permit.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::TooManySearches`] after [`MAX_WAIT`].
    pub(super) async fn start(&self) -> Result<SearchPermit, StoreError> {
        let acquired = timeout(MAX_WAIT, self.permits.acquire(ShareKey::current())).await;
        let Ok(permit) = acquired else {
            return Err(StoreError::TooManySearches);
        };
        Ok(SearchPermit {
            permit: Some(permit),
            continues_for: self.continues_for,
            abandoned: self.abandoned.clone(),
        })
    }
}

/// Permit of one search. If it is dropped before [`Self::end`], the caller has gone away, and the
/// database may continue the search for some time, during which the permit counts.
#[derive(Debug)]
pub(super) struct SearchPermit {
    permit: Option<Permits>,
    continues_for: Duration,
    abandoned: TaskTracker,
}

impl SearchPermit {
    /// Releases the permit of a search that the database has ended.
    pub(super) fn end(mut self) {
        self.permit = None;
    }
}

impl Drop for SearchPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let continues_for = self.continues_for;
            self.abandoned.spawn(async move {
                sleep(continues_for).await;
                drop(permit);
            });
        }
    }
}
