//! Clusters whose slots move and whose masters are replaced, and sentinels that replace the master,
//! while turns are begun and saved: no call fails, and no read is stale.

use std::{sync::Arc, time::Duration};

use test_support::{redis_cluster::RedisCluster, sentinel_group::SentinelGroup};
use tokio::time::sleep;

use crate::{
    checker::check,
    cluster::Cluster,
    history::{Fault, History, Recorder},
    round, seed,
    workload::{Pace, Plan, Workload},
};

/// Duration of the workload before, between and after the faults.
const PHASE: Duration = Duration::from_secs(2);

/// Hash slots that are moved.
const MOVED_SLOTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_consistent_while_a_redis_cluster_changes() {
    let _shared = crate::MACHINE.read().await;
    let mut redis = RedisCluster::start(3).await;
    // The sidecars find the cluster through one of its nodes.
    let cluster = Arc::new(Cluster::start_on(&redis.nodes[0].url()).await);
    let load = Load::start(cluster).await;
    let mut moved = 0;
    while moved < MOVED_SLOTS {
        moved += usize::from(redis.move_slot(moved % 3, (moved + 1) % 3).await);
    }
    sleep(PHASE).await;

    let from = load.recorder.now().at;
    redis.nodes[1].kill();
    redis.promoted(4).await;
    load.heals("a master of the cluster is killed", from).await;
    redis.nodes[1].run().await;
    redis.demoted(1).await;
    sleep(PHASE).await;

    let from = load.recorder.now().at;
    redis.fail_over_to(1).await;
    load.heals("a master of the cluster is replaced", from)
        .await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_consistent_while_sentinels_replace_the_master() {
    let _shared = crate::MACHINE.read().await;
    let mut group = SentinelGroup::start(3, "2").await;
    // Later failovers may begin sooner, and a busy server does not cause one.
    group.set("failover-timeout", "1000").await;
    group.set("down-after-milliseconds", "1500").await;
    let load = Load::start(Arc::new(Cluster::start_on(&group.url()).await)).await;

    let from = load.recorder.now().at;
    group.fail_over(0).await;
    load.heals("a master is replaced by sentinels", from).await;
    sleep(PHASE).await;

    let from = load.recorder.now().at;
    group.replica.kill();
    group.failed_over_to(&group.main, 1).await;
    load.heals("a master with sentinels is killed", from).await;
    load.end().await;
}

/// Workload on sidecars, and its history.
struct Load {
    cluster: Arc<Cluster>,
    recorder: Arc<Recorder>,
    workload: Workload,
}

impl Load {
    async fn start(cluster: Arc<Cluster>) -> Self {
        cluster.recovers().await;
        let recorder = Arc::new(Recorder::new());
        let plan = Plan {
            seed: seed(),
            pace: Pace::Moderate,
            has_removals: true,
        };
        let workload = Workload::start(&cluster, &recorder, plan).await;
        sleep(PHASE).await;
        Self {
            cluster,
            recorder,
            workload,
        }
    }

    /// Waits until the sidecars use Redis again, and records the fault.
    async fn heals(&self, name: &str, from: Duration) {
        self.cluster.recovers().await;
        self.recorder.record_fault(Fault {
            name: name.to_owned(),
            cuts_redis: true,
            cuts_postgres: false,
            sidecar: None,
            from,
            until: self.recorder.now().at,
        });
    }

    async fn end(self) {
        sleep(PHASE).await;
        let history = round::end(&self.cluster, &self.recorder, self.workload).await;
        let report = check(&history);
        eprintln!("{report}failures: {:#?}", history.failures);
        let History {
            unexpected,
            prompt_failures,
            ..
        } = history;
        let is_consistent = report.violations.is_empty() && unexpected.is_empty();
        if !is_consistent || !prompt_failures.is_empty() {
            self.cluster.print_logs().await;
        }
        assert!(is_consistent, "{:?} {unexpected:?}", report.counts());
        assert!(prompt_failures.is_empty(), "{prompt_failures:?}");
        assert!(report.reads_from_window > 0, "no read used Redis");
    }
}
