use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos,
    state::keyed::HashMapStateStore,
};
use tokio::time::Instant;

use super::Caller;

/// Number of callers in memory before those without recent calls are removed.
const MIN_CALLERS_KEPT: usize = 1024;

/// Limit on the calls per second of each caller. A caller may make the calls of one second
/// at once.
#[derive(Debug)]
pub(super) struct CallerRate {
    calls_per_second: NonZeroU32,
    limiter: RateLimiter<Caller, HashMapStateStore<Caller>, TokioClock, NoOpMiddleware<Nanos>>,
    /// Number of callers in memory at which those without recent calls are removed. It grows
    /// with the number of active callers, so that not every call iterates over all of them.
    cleanup_at: AtomicUsize,
}

/// Error of a call beyond a caller's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateExceeded {
    /// Limit on the caller's calls per second.
    pub calls_per_second: NonZeroU32,
    /// Time until the caller may make another call.
    pub retry_after: Duration,
}

impl CallerRate {
    pub(super) fn new(calls_per_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(calls_per_second);
        Self {
            calls_per_second,
            limiter: RateLimiter::hashmap_with_clock(quota, TokioClock(Instant::now())),
            cleanup_at: AtomicUsize::new(MIN_CALLERS_KEPT),
        }
    }

    /// Counts a call of `caller`.
    ///
    /// # Errors
    /// Fails if the caller has exceeded its rate. The call is not counted then.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), RateExceeded> {
        if self.limiter.len() >= self.cleanup_at.load(Ordering::Relaxed) {
            // The state of a caller with its full quota equals that of a new caller, so it need
            // not be stored.
            self.limiter.retain_recent();
            let cleanup_at = (2 * self.limiter.len()).max(MIN_CALLERS_KEPT);
            self.cleanup_at.store(cleanup_at, Ordering::Relaxed);
        }
        self.limiter
            .check_key(caller)
            .map_err(|exceeded| RateExceeded {
                calls_per_second: self.calls_per_second,
                retry_after: exceeded.wait_time_from(self.limiter.clock().now()),
            })
    }
}

/// Tokio's clock, which tests can pause. Its time is the time since its creation.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::CallerName;

    fn rate(calls_per_second: u32) -> CallerRate {
        CallerRate::new(calls_per_second.try_into().unwrap())
    }

    fn caller(name: &str) -> Caller {
        Caller {
            name: CallerName::parse(name),
            is_operator: false,
        }
    }

    /// Number of calls that are accepted at once.
    fn accepted(rate: &CallerRate, caller: &Caller) -> usize {
        std::iter::from_fn(|| rate.check(caller).ok()).count()
    }

    fn retry_after(rate: &CallerRate, caller: &Caller) -> Duration {
        rate.check(caller).unwrap_err().retry_after
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_the_calls_of_a_second_at_once_and_then_one_per_interval() {
        let (rate, caller) = (rate(10), caller("a"));
        assert_eq!(accepted(&rate, &caller), 10);
        assert_eq!(retry_after(&rate, &caller), Duration::from_millis(100));
        tokio::time::advance(Duration::from_millis(60)).await;
        assert_eq!(retry_after(&rate, &caller), Duration::from_millis(40));
        tokio::time::advance(Duration::from_millis(40)).await;
        assert_eq!(accepted(&rate, &caller), 1);
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(accepted(&rate, &caller), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_its_own_rate_and_unknown_callers_share_one() {
        let rate = rate(1);
        for name in ["a", "b", ""] {
            assert_eq!(accepted(&rate, &caller(name)), 1, "{name}");
            assert_eq!(accepted(&rate, &caller(name)), 0, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn removes_callers_without_recent_calls() {
        let rate = rate(1);
        for round in 0..2 {
            for number in 0..MIN_CALLERS_KEPT {
                rate.check(&caller(&format!("{round}-{number}"))).unwrap();
            }
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        rate.check(&caller("last")).unwrap();
        assert_eq!(rate.limiter.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_state_of_active_callers() {
        let rate = rate(1);
        for number in 0..2 * MIN_CALLERS_KEPT {
            rate.check(&caller(&number.to_string())).unwrap();
        }
        for number in 0..2 * MIN_CALLERS_KEPT {
            assert_eq!(accepted(&rate, &caller(&number.to_string())), 0);
        }
    }
}
