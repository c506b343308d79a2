//! Completes the pending invalidations of recent windows, which writes of any process have recorded
//! in the store.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{Memory, write_through::MAX_CONCURRENT_WINDOWS};
use crate::store::{PendingInvalidation, StoreError};

/// Time between two looks at the store. A read of a window can lack a write that was not announced
/// for about as long.
const INTERVAL: Duration = Duration::from_millis(500);

/// Number of invalidations that are read at a time.
const PAGE: u32 = 256;

impl Memory {
    /// Completes pending invalidations while the windows can be reached, until the future is
    /// dropped.
    pub async fn complete_invalidations(&self) {
        while self.0.recent.is_shared() {
            let connection = self.0.recent.connection();
            self.complete_present_invalidations().await;
            // Reads over a new connection wait for this.
            let _ = timeout(INTERVAL, self.0.recent.connection_changed(connection)).await;
        }
    }

    /// Completes the invalidations that are pending now, and permits reads of the windows if and only
    /// if all windows could be dropped. Does nothing if the windows cannot be reached.
    pub async fn complete_present_invalidations(&self) {
        let recent = &self.0.recent;
        let Some(connection) = recent.connection() else {
            return;
        };
        match self.complete_all().await {
            Ok(true) => recent.trust(Some(connection)),
            Ok(false) => {
                // Redis may refuse writes and begin to accept them at any time: until the next look,
                // the windows would be read again.
                recent.trust(None);
                tracing::debug!("some windows could not be dropped; trying again");
            }
            Err(error) => tracing::debug!(%error, "cannot read the pending invalidations"),
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
