use super::StoreError;
use crate::{
    domain::NumberedMessage,
    fairness::{FairSemaphore, Permits, ShareKey},
};

/// Limit on exports and imports in progress. Each uses a connection until its client has
/// finished, so the limit reserves connections for all other calls.
#[derive(Clone, Debug)]
pub(super) struct TransferLimit(FairSemaphore);

/// Permit of one export or import, which counts until it is dropped.
#[derive(Debug)]
pub(super) struct TransferPermit(
    #[expect(dead_code, reason = "the permit counts while it is held")] Permits,
);

impl TransferLimit {
    pub(super) fn new(max: usize) -> Self {
        Self(FairSemaphore::new(max))
    }

    /// Counts one more transfer, or rejects it with [`StoreError::TooManyTransfers`]
    /// when the limit is reached.
    pub(super) fn start(&self) -> Result<TransferPermit, StoreError> {
        let permit = self.0.try_acquire(ShareKey::current(), 1);
        permit
            .map(TransferPermit)
            .ok_or(StoreError::TooManyTransfers)
    }
}

/// What an import stores with the conversation about all of its messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ImportTotals {
    pub(super) tokens: i64,
    pub(super) has_pinned: bool,
}

impl ImportTotals {
    pub(super) fn add(&mut self, messages: &[NumberedMessage]) {
        for NumberedMessage { message, .. } in messages {
            self.tokens += i64::from(message.token_count.unwrap_or_default());
            self.has_pinned |= message.pinned;
        }
    }
}
