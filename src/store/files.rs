use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::StoreError;

/// Exports and imports under way. They hold a connection for as long as a client takes,
/// so only so many are let in that some are left to others.
#[derive(Clone, Debug)]
pub(super) struct Files(Arc<Semaphore>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct OpenFile(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Files {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    pub(super) fn open(&self) -> Result<OpenFile, StoreError> {
        let permit = Arc::clone(&self.0).try_acquire_owned();
        permit
            .map(OpenFile)
            .map_err(|_| StoreError::Unavailable("too many exports and imports at once".into()))
    }
}
