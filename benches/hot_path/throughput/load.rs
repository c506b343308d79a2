//! Loads, and their measurement in alternating order.

use std::time::Duration;

use super::{
    client::{Calls, Sample},
    cpu::{Processes, Usage},
    pgbench::Pgbench,
    python::Python,
};

/// Time in which connections are opened and statements are planned before a measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// Duration of each of the two periods in which a load is measured.
const PERIOD: Duration = Duration::from_millis(1500);

/// Calls that a number of callers repeat.
#[derive(Debug)]
pub(super) enum Load {
    Grpc(Box<Calls>, Processes),
    Pgbench(Pgbench),
    Python(Box<Python>),
}

/// What was measured in all periods of a load.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) sample: Sample,
    usage: Usage,
}

impl Measured {
    pub(super) fn cpu_per_call(&self) -> Usage {
        self.usage.per_call(self.sample.calls)
    }
}

impl Load {
    async fn run(&mut self, callers: usize, duration: Duration) -> (Sample, Usage) {
        match self {
            Self::Grpc(calls, processes) => {
                let before = processes.snapshot();
                let sample = calls.run(callers, duration).await;
                (sample, processes.snapshot().since(&before))
            }
            Self::Pgbench(pgbench) => pgbench.run(callers, duration).await,
            Self::Python(python) => python.run(callers, duration).await,
        }
    }

    /// pgbench has no state to warm up, and runs for seconds.
    fn is_cold(&self) -> bool {
        !matches!(self, Self::Pgbench(_))
    }
}

/// Measures loads twice, the second time in reverse order (A B B A), so that the order favors none.
pub(super) async fn alternate(callers: usize, loads: &mut [Load]) -> Vec<Measured> {
    alternate_for(callers, loads, PERIOD).await
}

/// Measures like [`alternate`], in periods of another duration.
pub(super) async fn alternate_for(
    callers: usize,
    loads: &mut [Load],
    period: Duration,
) -> Vec<Measured> {
    for load in loads.iter_mut().filter(|load| load.is_cold()) {
        load.run(callers, WARM_UP).await;
    }
    let mut measured = vec![Measured::default(); loads.len()];
    let order = (0..loads.len()).chain((0..loads.len()).rev());
    for index in order {
        let (sample, usage) = loads[index].run(callers, period).await;
        measured[index].sample.add(sample);
        measured[index].usage.add(usage, 1.0);
    }
    for measured in &mut measured {
        measured.sample.times.sort_unstable();
    }
    measured
}
