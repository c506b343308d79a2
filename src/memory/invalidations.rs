//! Completes the pending invalidations of recent windows, which writes of any process have recorded
//! in the store.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{Dependencies, Memory, write_through::MAX_CONCURRENT_WINDOWS};
use crate::store::{PendingInvalidation, StoreError};

/// Time between two looks at the store. A read of a window can lack a write that was not announced
/// for about twice as long.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time for which a look counts for other processes, too. It is shorter than [`INTERVAL`], so that one
/// process alone looks each time.
const CLAIM_INTERVAL: Duration = Duration::from_millis(400);

/// Number of invalidations that are read at a time.
const PAGE: u32 = 256;

impl Memory {
    /// Completes pending invalidations while the windows can be reached, until the future is
    /// dropped. A process that would have to open a connection to the store leaves them to others that use
    /// the same store and windows: a server may have fewer connections than processes.
    pub async fn complete_invalidations(&self) {
        let Dependencies { recent, store, .. } = &*self.0;
        // Connection to the windows over which this process has completed them.
        let mut completed = None;
        while recent.is_shared() {
            let connection = recent.connection();
            let can_leave = completed == Some(connection) && !store.has_idle_connection();
            if !can_leave || recent.claim_completion(CLAIM_INTERVAL).await {
                let is_complete = self.complete_present_invalidations().await;
                // Others rely on a claim. A process that has not claimed and failed tells them nothing.
                if is_complete || can_leave {
                    recent.record_completion(is_complete, CLAIM_INTERVAL).await;
                }
                completed = is_complete.then_some(connection);
            }
            // Reads over a new connection wait for this.
            let _ = timeout(INTERVAL, recent.connection_changed(connection)).await;
        }
    }

    /// Completes the invalidations that are pending now, and permits reads of the windows if and only
    /// if all windows could be dropped. Does nothing if the windows cannot be reached.
    ///
    /// Returns whether all invalidations are complete.
    pub async fn complete_present_invalidations(&self) -> bool {
        let recent = &self.0.recent;
        let Some(connection) = recent.connection() else {
            return false;
        };
        match self.complete_all().await {
            Ok(true) => {
                recent.trust(Some(connection));
                true
            }
            Ok(false) => {
                // Redis may refuse writes and begin to accept them at any time: until the next look,
                // the windows would be read again.
                recent.trust(None);
                tracing::debug!("some windows could not be dropped; trying again");
                false
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read the pending invalidations");
                false
            }
        }
    }

    /// Returns whether all windows could be dropped.
    async fn complete_all(&self) -> Result<bool, StoreError> {
        let store = &self.0.store;
        let mut after = None;
        loop {
            let page = store.pending_invalidations(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(true);
            };
            after = Some(last.conversation);
            let dropped = self.drop_windows(&page).await;
            if !dropped.is_empty()
                && let Err(error) = store.complete_invalidations(&dropped).await
            {
                tracing::debug!(%error, "completed invalidations will be completed again");
            }
            if dropped.len() < page.len() {
                return Ok(false);
            }
            if page.len() < PAGE as usize {
                return Ok(true);
            }
        }
    }

    /// Drops windows, and returns the invalidations that this has completed.
    async fn drop_windows(&self, page: &[PendingInvalidation]) -> Vec<PendingInvalidation> {
        stream::iter(page.iter().copied())
            .map(async |pending: PendingInvalidation| {
                let dropped = self.0.recent.invalidate(pending.conversation).await;
                dropped.then_some(pending)
            })
            .buffer_unordered(MAX_CONCURRENT_WINDOWS)
            .filter_map(async |completed| completed)
            .collect()
            .await
    }
}
