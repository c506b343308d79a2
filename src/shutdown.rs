//! Shutdown: signals, and draining of calls and writes within a deadline.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

/// Time for connections to close after their calls have ended. It is bounded because the
/// server waits forever for a peer that opens a connection and sends nothing.
const CONNECTION_CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Signal of a write beyond the maximum size of a file. Its default action ends the process; with a
/// handler, only the write fails. Linux and macOS have this number on all supported processors.
const SIGXFSZ: i32 = 25;

/// The signals that stop the program: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    _file_size: Signal,
}

impl Signals {
    /// Installs the signal handlers, which replace the default actions for the rest of the
    /// process's life.
    ///
    /// # Errors
    /// Returns an error if a handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    /// Waits for the next of these signals.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for calls and writes to end, then for the server to close its connections; for at
/// most `limit` in total. Returns whether all calls and writes have ended.
pub async fn drain(
    calls: &TaskTracker,
    writes: &TaskTracker,
    server: impl Future<Output = ()>,
    limit: Duration,
) -> bool {
    let deadline = Instant::now() + limit;
    calls.close();
    // Writes are tracked separately because a write continues after its caller has gone.
    writes.close();
    let ended = async || {
        calls.wait().await;
        writes.wait().await;
    };
    let drained = timeout_at(deadline, ended()).await.is_ok();
    let close_deadline = deadline.min(Instant::now() + CONNECTION_CLOSE_TIMEOUT);
    // Connections that are still open afterwards are dropped, except for calls that began
    // before their connection received GOAWAY.
    let _ = timeout_at(close_deadline, server).await;
    drained && timeout_at(deadline, ended()).await.is_ok()
}
