use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Pace of the work that gives no response to an accepted call: rejected and cancelled calls, probes, and
/// frames on connections without a call.
///
/// Any peer can cause it without credentials, and it takes processor time. When all connections
/// together exceed the pace, those that have caused such work are not read for a while, so that calls on
/// other connections are not delayed.
#[derive(Debug)]
pub(super) struct OverheadPace {
    /// When what has been done was due at the pace.
    due: Arc<Mutex<Instant>>,
    /// Whether the connection has caused such work since its last delay was determined.
    is_of_connection: AtomicBool,
}

impl OverheadPace {
    /// Pace of rejected calls, each of which takes about a fifth of this time.
    const INTERVAL: Duration = Duration::from_micros(100);

    /// Number of rejected calls that take about as long as an accepted call that is cancelled.
    const CANCELLED_CALL: u32 = 3;

    /// Bytes of frames that take about as long as a rejected call.
    const BYTES: u32 = 64;

    /// Time by which work may precede the pace without a delay: that of a hundred calls.
    const BURST: Duration = Duration::from_millis(10);

    /// Limit on a delay.
    const MAX_DELAY: Duration = Duration::from_secs(1);

    /// Creates the pace of all connections.
    pub(super) fn new() -> Self {
        Self {
            due: Arc::new(Mutex::new(Instant::now())),
            is_of_connection: AtomicBool::new(false),
        }
    }

    /// Creates the state of one more connection.
    pub(super) fn of_new_connection(&self) -> Self {
        Self {
            due: Arc::clone(&self.due),
            is_of_connection: AtomicBool::new(false),
        }
    }

    /// Records that an exchange of the connection has ended whose call was not accepted, or a probe.
    pub(super) fn add_rejected_call(&self) {
        self.add(Self::INTERVAL);
    }

    /// Records that an accepted call of the connection has ended without a response, or that its request
    /// could not be decoded.
    pub(super) fn add_cancelled_call(&self) {
        self.add(Self::INTERVAL * Self::CANCELLED_CALL);
    }

    /// Records that the connection has read bytes of frames that belong to no call.
    pub(super) fn add_frames(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.add(Self::INTERVAL * bytes / Self::BYTES);
    }

    fn add(&self, time: Duration) {
        self.is_of_connection.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let mut due = self.due();
        *due = ((*due).max(now) + time).min(now + Self::BURST + Self::MAX_DELAY);
    }

    /// Time for which the connection must not be read, if any.
    pub(super) fn take_delay(&self) -> Option<Duration> {
        if !self.is_of_connection.swap(false, Ordering::Relaxed) {
            return None;
        }
        let ahead = self.due().saturating_duration_since(Instant::now());
        ahead.checked_sub(Self::BURST).filter(|it| !it.is_zero())
    }

    fn due(&self) -> MutexGuard<'_, Instant> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_connections_with_overhead_are_delayed_beyond_the_pace() {
        let all = OverheadPace::new();
        let [one, other] = [(); 2].map(|()| all.of_new_connection());
        for _ in 0..100 {
            one.add_rejected_call();
        }
        assert_eq!(one.take_delay(), None);
        for _ in 0..50 {
            one.add_rejected_call();
        }
        let delay = one.take_delay();
        assert_eq!(delay, Some(50 * OverheadPace::INTERVAL));
        assert_eq!((one.take_delay(), other.take_delay()), (None, None));
        other.add_rejected_call();
        assert!(other.take_delay() > delay);
        tokio::time::advance(Duration::from_secs(1)).await;
        other.add_rejected_call();
        assert_eq!(other.take_delay(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_calls_count_as_several_rejected_ones() {
        let connection = OverheadPace::new().of_new_connection();
        for _ in 0..34 {
            connection.add_cancelled_call();
        }
        assert_eq!(connection.take_delay(), Some(2 * OverheadPace::INTERVAL));
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_limited() {
        let all = OverheadPace::new();
        let connection = all.of_new_connection();
        for _ in 0..100_000 {
            connection.add_rejected_call();
        }
        let delay = connection.take_delay();
        assert_eq!(delay, Some(OverheadPace::MAX_DELAY));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_count_by_their_bytes() {
        let connection = OverheadPace::new().of_new_connection();
        connection.add_frames(100 * 64);
        assert_eq!(connection.take_delay(), None);
        connection.add_frames(32);
        assert_eq!(connection.take_delay(), Some(OverheadPace::INTERVAL / 2));
    }
}
