//! The end: signals, draining, a deadline.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

/// How long connections get to say goodbye once their calls are done. A peer
/// that has opened one and says nothing would hold the server for ever.
const GOODBYE: Duration = Duration::from_millis(500);

/// The signals that end the program: SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over, from here on.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for either.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for calls and writes to end, then shortly for the server; at most
/// `limit` in all. Whether all calls and writes ended.
pub async fn drain(
    calls: &TaskTracker,
    writes: &TaskTracker,
    server: impl Future<Output = ()>,
    limit: Duration,
) -> bool {
    let deadline = Instant::now() + limit;
    calls.close();
    // A write goes on after its caller has left, so it is waited for apart.
    writes.close();
    let ended = async || {
        calls.wait().await;
        writes.wait().await;
    };
    let drained = timeout_at(deadline, ended()).await.is_ok();
    let goodbye = deadline.min(Instant::now() + GOODBYE);
    // Whoever has not left by then is left behind, but for the calls that came
    // before their connection was told to go.
    let _ = timeout_at(goodbye, server).await;
    drained && timeout_at(deadline, ended()).await.is_ok()
}
