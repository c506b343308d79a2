use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often the same thing is said at most.
const EVERY: Duration = Duration::from_mins(1);

/// Says of something that goes on and on when it is worth a log line again: at
/// once, and then once a minute.
#[derive(Debug, Default)]
pub struct Occasionally(Mutex<Option<Instant>>);

impl Occasionally {
    /// Whether to say it now.
    pub fn is_due(&self) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = said.is_none_or(|said| now.duration_since(said) >= EVERY);
        if due {
            *said = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_at_once_and_then_once_a_minute() {
        let occasionally = Occasionally::default();
        assert!(occasionally.is_due());
        assert!(!occasionally.is_due());
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(occasionally.is_due());
        assert!(!occasionally.is_due());
    }
}
