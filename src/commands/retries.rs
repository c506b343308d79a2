//! Which calls of a command are repeated, and when.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Time for which a call is repeated while the sidecar is unavailable, for example while it restarts.
const PATIENCE: Duration = Duration::from_mins(1);

/// Delay before the first repetition. It doubles up to the maximum.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(1);

/// Repetitions of one operation.
#[derive(Debug)]
pub(super) struct Retries {
    started: Instant,
    delay: Duration,
    /// Whether an earlier attempt may have had an effect.
    pub(super) is_unsure: bool,
}

impl Retries {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            delay: FIRST_DELAY,
            is_unsure: false,
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// Returns the error of the attempt if a repetition does not help, or the time is over.
    pub(super) async fn wait(&mut self, error: Status) -> Result<(), Status> {
        let is_outage = is_unavailable(&error);
        if !(is_limit(&error) || is_outage) || self.started.elapsed() > PATIENCE {
            return Err(error);
        }
        self.is_unsure |= is_outage;
        sleep(self.delay).await;
        self.delay = (self.delay * 2).min(MAX_DELAY);
        Ok(())
    }
}

/// Whether the sidecar rejected the call because of a limit on calls at the same time.
pub(super) fn is_limit(error: &Status) -> bool {
    error.code() == Code::ResourceExhausted && error.get_details_retry_info().is_some()
}

/// Whether the sidecar or its store could not be reached, or did not answer.
pub(super) fn is_unavailable(error: &Status) -> bool {
    let is_lost = matches!(
        error.code(),
        Code::Unknown | Code::Internal | Code::Cancelled
    ) && (std::error::Error::source(error).is_some()
        || reason(error).as_deref() == Some("COMMIT_OUTCOME_UNKNOWN"));
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) || is_lost
}

/// The reason of an error that a program has to decide on.
pub(super) fn reason(error: &Status) -> Option<String> {
    error.get_details_error_info().map(|info| info.reason)
}
