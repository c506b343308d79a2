use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Caller;

/// How much of its calls a caller may make at once: those of a second.
const BURST: Duration = Duration::from_secs(1);

/// How many callers are remembered before those who have been silent are forgotten.
const REMEMBERED: usize = 1024;

/// The calls of each caller in a second, as a token bucket: what is kept of a caller is
/// the time at which its bucket is full again.
#[derive(Debug)]
pub(super) struct Rate {
    /// How long a call takes to be refilled.
    interval: Duration,
    full_at: Mutex<HashMap<Caller, Instant>>,
}

impl Rate {
    pub(super) fn new(calls_per_second: NonZeroU32) -> Self {
        Self {
            interval: Duration::from_secs(1) / calls_per_second.get(),
            full_at: Mutex::default(),
        }
    }

    /// Takes a call of a caller's, or says after which time there will be one.
    pub(super) fn take(&self, caller: &Caller) -> Result<(), Duration> {
        let mut callers = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if callers.len() >= REMEMBERED && !callers.contains_key(caller) {
            // Whose bucket is full is as one who never called.
            callers.retain(|_, full_at| *full_at > now);
        }
        let full_at = callers.get(caller).copied().unwrap_or(now).max(now) + self.interval;
        let until_full = full_at - now;
        if let Some(wait) = until_full.checked_sub(BURST).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        callers.insert(caller.clone(), full_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Name;

    fn rate(calls: u32) -> Rate {
        Rate::new(calls.try_into().unwrap())
    }

    fn caller(name: &str) -> Caller {
        Caller(Name::parse(name))
    }

    /// How many calls are taken at once.
    fn taken(rate: &Rate, caller: &Caller) -> usize {
        std::iter::from_fn(|| rate.take(caller).ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn the_calls_of_a_second_are_taken_at_once_and_then_each_in_its_time() {
        let (rate, caller) = (rate(10), caller("a"));
        assert_eq!(taken(&rate, &caller), 10);
        assert_eq!(rate.take(&caller), Err(Duration::from_millis(100)));
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(rate.take(&caller), Err(Duration::from_millis(40)));
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(taken(&rate, &caller), 1);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(taken(&rate, &caller), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_its_own_and_all_that_are_unknown_have_one() {
        let rate = rate(1);
        for name in ["a", "b", ""] {
            assert_eq!(taken(&rate, &caller(name)), 1, "{name}");
            assert_eq!(taken(&rate, &caller(name)), 0, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_have_gone_are_forgotten() {
        let rate = rate(1);
        for round in 0..2 {
            for number in 0..REMEMBERED {
                rate.take(&caller(&format!("{round}-{number}"))).unwrap();
            }
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        rate.take(&caller("last")).unwrap();
        assert_eq!(rate.full_at.lock().unwrap().len(), 1);
    }
}
