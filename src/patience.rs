//! Time limits that count only time in which the process ran.
//!
//! A container with a CPU limit is paused many times per second, and a virtual machine can be
//! stopped for longer. An ordinary timeout that expires during such a pause reports a server as
//! slow although its reply has arrived. The limits of this module are divided into ticks. A tick
//! that ends late counts with its planned length only, and after a late tick at least one more is
//! waited for, so that the reply is read before anything is concluded.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, sleep_until};

/// Shortest tick.
const MIN_TICK: Duration = Duration::from_millis(5);
/// Number of ticks of a long limit.
const TICKS: u32 = 40;
/// Upper bound on the time by which pauses extend a limit, in addition to the limit itself.
const MAX_EXTENSION: Duration = Duration::from_secs(1);

/// Error of a future that did not complete within its limit of running time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time limit has passed")]
pub struct Elapsed;

/// Runs a future for at most `limit` of running time. In wall time the limit is at most twice as
/// long plus a second; only a pause that is still in progress then exceeds that.
///
/// # Errors
///
/// Fails with [`Elapsed`] if the future has not completed by then.
///
/// # Cancel safety
///
/// Dropping the returned future drops `future`.
pub fn with_patience<F: Future>(
    limit: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    Limited {
        future,
        running_time: running_time(limit),
    }
}

pin_project! {
    /// Future with a limit. An async function would store the future twice.
    struct Limited<F, R> {
        #[pin]
        future: F,
        #[pin]
        running_time: R,
    }
}

impl<F: Future, R: Future<Output = ()>> Future for Limited<F, R> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // Polled first, so that its result counts even if the limit has passed.
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        this.running_time.poll(context).map(|()| Err(Elapsed))
    }
}

/// Waits until the process has run for `limit`. In wall time this takes at most twice as long plus
/// a second, and one tick more.
pub async fn running_time(limit: Duration) {
    let tick = (limit / TICKS).max(MIN_TICK);
    let started = Instant::now();
    let (mut remaining, mut is_late) = (limit, false);
    let mut began = started;
    while !remaining.is_zero() || is_late {
        let planned = if remaining.is_zero() {
            MIN_TICK
        } else {
            tick.min(remaining)
        };
        let deadline = began + planned;
        sleep_until(deadline).await;
        let now = Instant::now();
        let was_late = std::mem::replace(&mut is_late, now > deadline + MIN_TICK);
        // The resolution of timers does not add up over the ticks.
        began = if is_late { now } else { deadline };
        remaining = remaining.saturating_sub(planned);
        // A process that is paused in every tick may not wait for ever.
        let is_overdue = started.elapsed() > 2 * limit + MAX_EXTENSION;
        if is_overdue && (!is_late || was_late) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, pin::pin};

    use futures_util::FutureExt as _;
    use tokio::{
        task::yield_now,
        time::{advance, sleep, timeout},
    };

    use super::*;

    const LIMIT: Duration = Duration::from_millis(40);

    #[tokio::test(start_paused = true)]
    async fn the_limit_is_exact_in_a_process_that_runs() {
        for limit in [1, 4, 5, 12, 40, 700, 5_000].map(Duration::from_millis) {
            let started = Instant::now();
            assert_eq!(with_patience(limit, pending::<()>()).await, Err(Elapsed));
            let elapsed = started.elapsed();
            assert!(elapsed >= limit, "{elapsed:?} of {limit:?}");
            // The resolution of timers is a millisecond.
            let resolution = Duration::from_millis(1);
            assert!(elapsed <= limit + resolution, "{elapsed:?} of {limit:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_within_the_limit_is_returned() {
        let slow = async {
            sleep(LIMIT * 9 / 10).await;
            7
        };
        assert_eq!(with_patience(LIMIT, slow).await, Ok(7));
        assert_eq!(with_patience(Duration::ZERO, async { 7 }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_counts_as_one_tick() {
        let mut call = pin!(with_patience(LIMIT, pending::<()>()));
        for _ in 0..3 {
            assert!(call.as_mut().now_or_never().is_none());
            advance(Duration::from_millis(300)).await;
        }
        assert!(call.as_mut().now_or_never().is_none());
        // Three ticks of eight have passed.
        let rest = Duration::from_millis(20);
        assert!(timeout(rest, call.as_mut()).await.is_err());
        assert_eq!(timeout(rest, call).await, Ok(Err(Elapsed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_that_arrived_during_a_pause_is_returned() {
        // The reply is read by another task, one scheduling step after the pause.
        let reply = async {
            sleep(LIMIT + Duration::from_millis(1)).await;
            yield_now().await;
            sleep(Duration::from_millis(1)).await;
            7
        };
        let mut call = pin!(with_patience(LIMIT, reply));
        assert!(call.as_mut().now_or_never().is_none());
        for _ in 0..7 {
            advance(MIN_TICK).await;
            assert!(call.as_mut().now_or_never().is_none());
        }
        // Only the last tick ends late.
        advance(Duration::from_secs(5)).await;
        assert_eq!(call.await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_is_always_late_does_not_wait_for_ever() {
        let started = Instant::now();
        let mut call = pin!(with_patience(Duration::from_secs(10), pending::<()>()));
        while call.as_mut().now_or_never().is_none() {
            advance(Duration::from_secs(1)).await;
            assert!(started.elapsed() < Duration::from_secs(25));
        }
        assert!(started.elapsed() > Duration::from_secs(20));
    }
}
