//! Limits how often a lasting condition is logged.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Minimum time between two log lines about one condition.
const INTERVAL: Duration = Duration::from_mins(1);

/// Rate limit for the log lines about one condition, such as a server that is
/// unreachable: the first occurrence is logged at once, and later ones at most
/// once a minute.
#[derive(Debug, Default)]
pub struct LogThrottle {
    last_logged: Mutex<Option<Instant>>,
}

impl LogThrottle {
    /// Whether the caller should log this occurrence. `true` starts a new
    /// interval, so that of several concurrent callers one logs.
    pub fn should_log(&self) -> bool {
        let mut last_logged = self
            .last_logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = last_logged.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if is_due {
            *last_logged = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn logs_the_first_occurrence_and_then_once_a_minute() {
        let throttle = LogThrottle::default();
        assert!(throttle.should_log());
        assert!(!throttle.should_log());
        advance(Duration::from_secs(59)).await;
        assert!(!throttle.should_log());
        advance(Duration::from_secs(1)).await;
        assert!(throttle.should_log());
        assert!(!throttle.should_log());
    }

    #[tokio::test(start_paused = true)]
    async fn suppressed_occurrences_do_not_extend_the_interval() {
        let throttle = LogThrottle::default();
        let mut lines = 0;
        // One occurrence per second; those at 0, 60 and 120 seconds are logged.
        for _ in 0..=120 {
            lines += usize::from(throttle.should_log());
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 3);
    }

    #[test]
    fn one_of_several_concurrent_callers_logs() {
        let throttle = LogThrottle::default();
        let lines: usize = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| usize::from(throttle.should_log())))
                .collect();
            callers.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!(lines, 1);
    }
}
