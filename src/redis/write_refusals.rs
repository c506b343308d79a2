use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time after the last refused write in which Redis counts as unavailable.
const MEMORY: Duration = Duration::from_secs(10);

/// Time of the last write that Redis refused, for example because it is out of memory. Calls are
/// sent nevertheless, since reads and removals may succeed.
#[derive(Debug, Default)]
pub(super) struct WriteRefusals(Mutex<Option<Instant>>);

impl WriteRefusals {
    /// Records a refused write.
    pub(super) fn record(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a write was refused recently.
    pub(super) fn are_recent(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_forgotten_after_a_while() {
        let refusals = WriteRefusals::default();
        assert!(!refusals.are_recent());
        refusals.record();
        advance(MEMORY / 2).await;
        assert!(refusals.are_recent());
        refusals.record();
        advance(MEMORY / 2).await;
        assert!(refusals.are_recent());
        advance(MEMORY / 2).await;
        assert!(!refusals.are_recent());
    }
}
