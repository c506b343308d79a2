//! Durations that do not depend on how busy the machine is.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Measures how long something takes, without the time in which processes waited for a processor.
///
/// A test that proves an upper bound on time measures with it: on an idle machine the bound is
/// exact, and on a busy one the wait for a processor is not mistaken for slowness of the program.
#[derive(Debug)]
pub struct Stopwatch {
    started: Instant,
    stalled: Duration,
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            stalled: stalled(),
        }
    }

    /// Time since the start in which no process of the machine waited for a processor.
    pub fn elapsed(&self) -> Duration {
        let stalled = stalled().saturating_sub(self.stalled);
        self.started.elapsed().saturating_sub(stalled)
    }
}

/// Time since the start of the machine in which at least one process waited for a processor, as
/// the kernel counts it; zero where it does not.
fn stalled() -> Duration {
    let pressure = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let some = pressure.lines().find(|line| line.starts_with("some "));
    let total = some.and_then(|line| line.rsplit_once("total=")?.1.parse().ok());
    Duration::from_micros(total.unwrap_or(0))
}
