//! One round: a workload with faults, the recovery, the state at the end, and the result.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use test_support::within_progress;

use crate::{
    checker,
    clients::Client,
    cluster::{Cluster, SIDECARS},
    faults,
    history::{Consistency, History, Recorder},
    report::{Report, ViolationKind},
    stalls, store_state,
    targets::Target,
    workload::{Pace, Plan, Workload},
};

/// Acknowledged writes of a workload after the last fault has healed.
const PROGRESS: usize = 50;

/// Parameters of one round.
pub(crate) struct Round<'a> {
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    pub(crate) pace: Pace,
}

/// What happens to the cluster during the workload of a round.
pub(crate) enum Disturbance<'a> {
    None,
    /// Mixed faults whose names contain one of the texts; all without texts.
    Faults(&'a [String]),
    /// Short stops of sidecars.
    Stalls,
}

impl Round<'_> {
    /// Runs the workload and the faults, and returns the recorded history.
    pub(crate) async fn run(&self, disturbance: Disturbance<'_>) -> History {
        let recorder = Arc::new(Recorder::new());
        let plan = Plan {
            seed: self.seed,
            pace: self.pace,
            has_removals: true,
        };
        let workload = Workload::start(self.cluster, &recorder, plan).await;
        let (seed, duration) = (self.seed, self.duration);
        match disturbance {
            Disturbance::None => tokio::time::sleep(duration).await,
            Disturbance::Faults(names) => {
                faults::inject(self.cluster, &recorder, seed, names, duration).await;
                self.cluster.recovers().await;
            }
            Disturbance::Stalls => {
                stalls::inject(self.cluster, &recorder, seed, duration).await;
            }
        }
        end(self.cluster, &recorder, workload).await
    }
}

/// Waits until the clients of a workload make progress, stops them, and reads the state at the end.
pub(crate) async fn end(
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    workload: Workload,
) -> History {
    let calls = recorder.calls();
    within_progress(
        "clients make progress",
        async || recorder.calls(),
        |now| *now >= calls + PROGRESS,
    )
    .await;
    let targets = workload.stop().await;
    read_everywhere(cluster, recorder, &targets).await;
    let mut history = recorder.take();
    let url = &cluster.database_url;
    history.final_state = store_state::read(url, &history, recorder.now()).await;
    history
}

/// Reads every conversation through every sidecar.
pub(crate) async fn read_everywhere(
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    targets: &[Arc<Target>],
) {
    let client = Client::new(cluster, recorder);
    for target in targets {
        for sidecar in 0..SIDECARS {
            for consistency in [Consistency::Cached, Consistency::Strong] {
                client.history(sidecar, target, consistency, 10).await;
            }
        }
    }
}

/// Results of all rounds.
#[derive(Default)]
pub(crate) struct Totals {
    calls: usize,
    counts: BTreeMap<ViolationKind, usize>,
    unexpected: usize,
}

impl Totals {
    /// Checks a history and adds the result.
    pub(crate) fn add(&mut self, history: &History) {
        let report: Report = checker::check(history);
        eprintln!("{report}failures: {:#?}", history.failures);
        for error in history.unexpected.iter().take(10) {
            eprintln!("unexpected error at {error}");
        }
        self.calls += report.calls;
        self.unexpected += history.unexpected.len();
        for (kind, count) in report.counts() {
            *self.counts.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn assert_consistent(&self, seed: u64) {
        let Self {
            calls,
            counts,
            unexpected,
        } = self;
        assert!(
            counts.is_empty() && *unexpected == 0,
            "{calls} calls with CONSISTENCY_SEED={seed}: violations {counts:?}, {unexpected} unexpected errors"
        );
    }
}
