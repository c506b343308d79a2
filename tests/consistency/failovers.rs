//! Servers that go back to an earlier state, because a replica was promoted that had not received
//! everything.

use std::{sync::Arc, time::Duration};

use test_support::{eventually, sentinel_group::SentinelGroup};
use tokio::time::sleep;

use crate::{
    checker::check,
    cluster::Cluster,
    forks::Fork,
    history::{Fault, Recorder},
    round, seed, store_state,
    workload::{Pace, Plan, Workload},
};

/// Duration of each phase of a scenario.
const PHASE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_correct_after_redis_went_back_in_time() {
    let _shared = crate::MACHINE.read().await;
    let group = SentinelGroup::start(1, "1").await;
    let cluster = Arc::new(Cluster::start_on(&group.url()).await);
    cluster.recovers().await;
    let recorder = Arc::new(Recorder::new());
    let workload = Workload::start(&cluster, &recorder, plan()).await;
    sleep(PHASE).await;
    // The replica keeps its data and receives no more.
    group.replica.call(&["REPLICAOF", "127.0.0.1", "1"]).await;
    sleep(PHASE).await;
    let from = recorder.now().at;
    group.main.freeze();
    group.failed_over(0).await;
    cluster.recovers().await;
    sleep(PHASE).await;
    // The old master still has the newer state, until it becomes a replica.
    group.main.thaw();
    eventually("the old master is a replica", async || {
        let info = group.main.try_call(&["INFO", "replication"]).await;
        info.is_ok_and(|info| info.contains("role:slave"))
    })
    .await;
    cluster.recovers().await;
    recorder.record_fault(Fault {
        name: "redis fails over".to_owned(),
        cuts_redis: true,
        cuts_postgres: false,
        sidecar: None,
        from,
        until: recorder.now().at,
    });
    let report = check(&round::end(&cluster, &recorder, workload).await);
    eprintln!("{report}");
    assert!(report.violations.is_empty(), "{:?}", report.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_correct_after_postgres_went_back_in_time() {
    let _shared = crate::MACHINE.read().await;
    let cluster = Arc::new(Cluster::start().await);
    let mut standby = cluster.postgres.lock().await.start_standby().await;
    cluster.recovers().await;
    let recorder = Arc::new(Recorder::new());
    let saves_only = Plan {
        has_removals: false,
        ..plan()
    };
    let workload = Workload::start(&cluster, &recorder, saves_only).await;
    sleep(PHASE).await;
    // The standby receives no more.
    standby
        .execute("ALTER SYSTEM SET primary_conninfo = ''")
        .await;
    standby.execute("SELECT pg_reload_conf()").await;
    sleep(PHASE).await;
    let targets = workload.stop().await;
    round::read_everywhere(&cluster, &recorder, &targets).await;
    let mut primary = cluster.postgres.lock().await;
    primary.kill();
    standby.stop();
    standby.take_address_of(&primary);
    // Reads come from windows until the standby is promoted.
    let moment = recorder.now();
    let workload = Workload::start_on(&cluster, &recorder, plan(), targets);
    standby.run().await;
    let state = store_state::read(&standby.url(), &recorder.history(), moment).await;
    standby.promote().await;
    *primary = standby;
    drop(primary);
    sleep(PHASE).await;
    cluster.recovers().await;
    sleep(PHASE).await;
    let history = round::end(&cluster, &recorder, workload).await;
    let report = Fork { state }.check(&history);
    eprintln!("{} turns are lost; {report}", report.lost_by_fork);
    assert!(
        report.lost_by_fork > 0,
        "the standby has received everything"
    );
    assert!(report.violations.is_empty(), "{:?}", report.counts());
}

fn plan() -> Plan {
    Plan {
        seed: seed(),
        pace: Pace::Fast,
        has_removals: true,
    }
}
