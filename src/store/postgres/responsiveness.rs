//! Detection of a server that does not respond: it is suspended, its disk hangs, or the network
//! drops what is sent. No error ends a wait then.
//!
//! A wait for a lock and a long statement look the same to the call. The server is therefore
//! probed with another connection: if that gets no reply either, all calls that wait fail.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{Either, Shared, WeakShared, select},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    patience::with_patience,
    store::{
        operation_error::{BackendError, ErrorKind},
        pool::Probe,
    },
};

/// Time that a call waits before the server is probed.
const PROBE_AFTER: Duration = Duration::from_millis(700);

/// Minimum time that a statement waits before the server is probed, if its call has waited before.
const MIN_PROBE_AFTER: Duration = Duration::from_millis(100);

/// Time within which a server that runs replies to a new connection, unless it is far away.
pub(super) const REPLY_LIMIT: Duration = Duration::from_millis(900);

/// Time between two probes while calls continue to wait.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum time from the time at which a server stops responding until a call that waits for it
/// ends.
const _: () = assert!(
    PROBE_AFTER.as_millis() + REPLY_LIMIT.as_millis() < 2_000
        && PROBE_INTERVAL.as_millis() + REPLY_LIMIT.as_millis() < 2_000
);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whether the server replied to a probe.
type Replied = bool;

/// Watches whether the server responds while calls wait for it. Calls that wait at the same time
/// share a probe.
pub(super) struct Responsiveness {
    open: Probe,
    reply_limit: Duration,
    running: Mutex<Option<WeakShared<BoxFuture<Replied>>>>,
}

/// Error of a wait: the server does not respond.
#[derive(Debug)]
pub(super) struct ServerSilent {
    cause: &'static str,
}

impl ServerSilent {
    /// Returns the error of a statement that was waited for.
    pub(super) fn into_error(self, kind: ErrorKind) -> BackendError {
        BackendError::new(kind, self.cause)
    }
}

impl Responsiveness {
    /// Creates a watch that probes with `open`, which completes within `reply_limit` if the server runs.
    pub(super) fn new(open: Probe, reply_limit: Duration) -> Self {
        Self {
            open,
            reply_limit,
            running: Mutex::default(),
        }
    }

    /// Waits for a call that began at `started`.
    ///
    /// # Errors
    ///
    /// Fails if the server stops responding. The call is dropped then.
    pub(super) async fn watch<T>(
        &self,
        started: Instant,
        call: impl Future<Output = T>,
    ) -> Result<T, ServerSilent> {
        let first = (started + PROBE_AFTER).max(Instant::now() + MIN_PROBE_AFTER);
        // The call is polled first, so that its result is not discarded.
        match select(pin!(call), pin!(self.is_silent(first))).await {
            Either::Left((outcome, _)) => Ok(outcome),
            Either::Right((silent, _)) => Err(silent),
        }
    }

    /// Waits until the server does not reply to a probe.
    async fn is_silent(&self, first: Instant) -> ServerSilent {
        sleep_until(first).await;
        while self.probe().await {
            sleep(PROBE_INTERVAL).await;
        }
        ServerSilent {
            cause: "the server does not respond",
        }
    }

    /// Joins the running probe, or starts one.
    fn probe(&self) -> Shared<BoxFuture<Replied>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(probe) = running.as_ref().and_then(WeakShared::upgrade)
            && probe.peek().is_none()
        {
            return probe;
        }
        let opened = with_patience(self.reply_limit, (self.open)());
        // A server that rejects the connection has replied.
        let probe: BoxFuture<Replied> = Box::pin(async move { opened.await.is_ok() });
        let probe = probe.shared();
        *running = probe.downgrade();
        probe
    }
}

impl fmt::Debug for Responsiveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responsiveness").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use futures_util::future::join_all;

    use super::*;

    /// Returns a watch, and the number of its probes, whose server replies to the first `replies`
    /// of them.
    fn server(replies: u32) -> (Responsiveness, Arc<AtomicU32>) {
        let count = Arc::new(AtomicU32::new(0));
        let probes = Arc::clone(&count);
        let open: Probe = Arc::new(move || {
            if probes.fetch_add(1, Ordering::Relaxed) < replies {
                Box::pin(ready(Ok(())))
            } else {
                Box::pin(pending())
            }
        });
        (Responsiveness::new(open, REPLY_LIMIT), count)
    }

    #[tokio::test(start_paused = true)]
    async fn silent_server_ends_all_waits_within_two_seconds() {
        let (watch, probes) = server(0);
        let started = Instant::now();
        let waits = (0..8).map(|_| watch.watch(started, pending::<()>()));
        assert!(join_all(waits).await.iter().all(Result::is_err));
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(probes.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn long_statement_of_a_server_that_replies_is_waited_for() {
        let (watch, probes) = server(u32::MAX);
        let statement = sleep(Duration::from_secs(5));
        watch.watch(Instant::now(), statement).await.unwrap();
        assert_eq!(probes.load(Ordering::Relaxed), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_stops_while_a_call_waits_is_detected() {
        let (watch, _) = server(3);
        let started = Instant::now();
        watch.watch(started, pending::<()>()).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test(start_paused = true)]
    async fn later_statement_of_a_call_does_not_wait_as_long_again() {
        let (watch, _) = server(0);
        let started = Instant::now();
        sleep(Duration::from_millis(900)).await;
        watch.watch(started, pending::<()>()).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn quick_call_does_not_probe() {
        let (watch, probes) = server(0);
        let statement = sleep(Duration::from_millis(600));
        watch.watch(Instant::now(), statement).await.unwrap();
        assert_eq!(probes.load(Ordering::Relaxed), 0);
    }
}
