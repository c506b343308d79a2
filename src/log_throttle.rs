//! Limits how often a lasting condition is logged.

use std::{
    hash::{DefaultHasher, Hasher as _},
    num::NonZeroU64,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Minimum time between two log lines about one cause.
const INTERVAL: Duration = Duration::from_mins(1);

/// Number of causes that are distinguished within [`INTERVAL`]. Further ones share one limit, so
/// that memory and log lines stay bounded if the causes contain text that varies.
const MAX_CAUSES: usize = 32;

/// Key of the causes beyond [`MAX_CAUSES`].
const OTHER_CAUSES: u64 = 0;

/// Rate limit for the log lines about one condition, such as a server that is unreachable.
///
/// The first occurrence of each cause is logged at once, and later ones with the same cause at
/// most once a minute, together with the number of those that were not logged.
#[derive(Debug, Default)]
pub struct LogThrottle {
    /// The causes that were logged last. Searched in order, because there are few.
    causes: Mutex<Vec<LoggedCause>>,
}

/// State of one cause.
#[derive(Debug)]
struct LoggedCause {
    key: u64,
    last_logged: Instant,
    suppressed: u64,
}

/// Number of occurrences of a cause that were not logged since its last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suppressed(u64);

impl Suppressed {
    /// Returns the number as a field of a log line, which is omitted if there were none.
    pub fn count(self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0)
    }
}

impl LogThrottle {
    /// Creates a throttle that has logged nothing.
    pub const fn new() -> Self {
        Self {
            causes: Mutex::new(Vec::new()),
        }
    }

    /// Whether the caller should log this occurrence of a condition that has one cause.
    pub fn should_log(&self) -> bool {
        self.admit("").is_some()
    }

    /// Returns how many occurrences of `cause` were suppressed since its last line, if the caller
    /// should log this one. That starts a new interval, so that of several concurrent callers
    /// one logs. Words with digits, such as ids, sizes and durations, do not distinguish causes.
    pub fn admit(&self, cause: &str) -> Option<Suppressed> {
        let is_separator = |c: char| !c.is_alphanumeric() && c != '-' && c != '_';
        let words = cause.split_inclusive(is_separator);
        self.admit_key(key_of(words.filter(|word| !contains_digit(word))))
    }

    /// Like [`Self::admit`], with the place in the source at which the condition is detected
    /// instead of its cause.
    pub fn admit_location(&self, location: &str) -> Option<Suppressed> {
        self.admit_key(key_of([location]))
    }

    fn admit_key(&self, key: u64) -> Option<Suppressed> {
        let now = Instant::now();
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = causes.iter().position(|cause| cause.key == key);
        let known = known.or_else(|| {
            if causes.len() < MAX_CAUSES {
                return None;
            }
            // A cause that would be logged again anyway is forgotten first.
            causes.retain(|cause| !cause.is_due(now));
            let is_full = causes.len() >= MAX_CAUSES;
            let others = causes.iter().position(|cause| cause.key == OTHER_CAUSES);
            others.filter(|_| is_full)
        });
        if let Some(known) = known {
            return causes[known].admit(now);
        }
        let is_full = causes.len() >= MAX_CAUSES;
        causes.push(LoggedCause {
            key: if is_full { OTHER_CAUSES } else { key },
            last_logged: now,
            suppressed: 0,
        });
        Some(Suppressed(0))
    }
}

impl LoggedCause {
    fn is_due(&self, now: Instant) -> bool {
        now.duration_since(self.last_logged) >= INTERVAL
    }

    fn admit(&mut self, now: Instant) -> Option<Suppressed> {
        if !self.is_due(now) {
            self.suppressed += 1;
            return None;
        }
        self.last_logged = now;
        Some(Suppressed(std::mem::take(&mut self.suppressed)))
    }
}

fn contains_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Returns the key of a cause, a hash of its words.
fn key_of<'a>(words: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for word in words {
        hasher.write(word.as_bytes());
    }
    hasher.finish().max(OTHER_CAUSES + 1)
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const fn suppressed(count: u64) -> Suppressed {
        Suppressed(count)
    }

    #[tokio::test(start_paused = true)]
    async fn logs_the_first_occurrence_and_then_once_a_minute() {
        let throttle = LogThrottle::new();
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
        let throttle = LogThrottle::new();
        let mut lines = 0;
        // One occurrence per second; those at 0, 60 and 120 seconds are logged.
        for _ in 0..=120 {
            lines += usize::from(throttle.should_log());
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_cause_is_logged_at_once() {
        let throttle = LogThrottle::new();
        assert_eq!(throttle.admit("connection refused"), Some(suppressed(0)));
        assert_eq!(throttle.admit("connection refused"), None);
        assert_eq!(throttle.admit("password rejected"), Some(suppressed(0)));
        assert_eq!(throttle.admit("connection refused"), None);
        assert_eq!(throttle.admit("password rejected"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_line_counts_the_suppressed_ones_of_its_cause() {
        let throttle = LogThrottle::new();
        for _ in 0..=1234 {
            throttle.admit("connection refused");
        }
        throttle.admit("password rejected");
        advance(INTERVAL).await;
        assert_eq!(throttle.admit("connection refused"), Some(suppressed(1234)));
        assert_eq!(throttle.admit("password rejected"), Some(suppressed(0)));
        assert_eq!(Suppressed(0).count(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_and_ids_do_not_distinguish_causes() {
        let throttle = LogThrottle::new();
        let cause = "timed out after 1000 ms: 0197a2b4-aaaa-7bbb-8ccc-0123456789ab, port 5432";
        let same = "timed out after 1017 ms: 0197a2b5-cccc-7ddd-9eee-1123456789ab, port 6432";
        assert_eq!(throttle.admit(cause), Some(suppressed(0)));
        assert_eq!(throttle.admit(same), None);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_a_file_are_different_locations() {
        let throttle = LogThrottle::new();
        assert_eq!(
            throttle.admit_location("src/lib.rs:12"),
            Some(suppressed(0))
        );
        assert_eq!(
            throttle.admit_location("src/lib.rs:13"),
            Some(suppressed(0))
        );
        assert_eq!(throttle.admit_location("src/lib.rs:12"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn causes_that_vary_without_end_have_bounded_memory_and_log_lines() {
        let throttle = LogThrottle::new();
        let cause = |number: usize| "x".repeat(number + 1);
        let logged = (0..10_000)
            .filter(|number| throttle.admit(&cause(*number % 500)).is_some())
            .count();
        assert_eq!(logged, MAX_CAUSES + 1);
        assert!(throttle.causes.lock().unwrap().len() <= MAX_CAUSES + 1);
        // After a minute there is room for other causes.
        advance(INTERVAL).await;
        assert_eq!(throttle.admit("password rejected"), Some(suppressed(0)));
        assert_eq!(throttle.admit("connection refused"), Some(suppressed(0)));
        assert_eq!(throttle.admit("password rejected"), None);
    }

    #[test]
    fn one_of_several_concurrent_callers_logs() {
        let throttle = LogThrottle::new();
        let lines: usize = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| usize::from(throttle.should_log())))
                .collect();
            callers.into_iter().map(|c| c.join().unwrap()).sum()
        });
        assert_eq!(lines, 1);
    }
}
