//! Sidecars that are stopped for moments, as by a scheduler or a limit on processor time, while both
//! servers are healthy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use test_support::{cpu_limit::CpuLimit, http::Http, random::Random};
use tokio::time::sleep;

use crate::{
    checker,
    cluster::{Cluster, SIDECARS},
    history::{Fault, Recorder},
    round::{Disturbance, Round},
    workload::Pace,
};

/// Failures of calls that race with a removal or another save, which are not caused by stalls.
const RACES: [&str; 2] = [
    "NotFound: no such conversation",
    "Aborted: the conversation ends at",
];

/// Number of attempts to run undisturbed on a busy machine that does not give precedence.
const MAX_ATTEMPTS: usize = 4;

/// Stops a random sidecar for 50 to 300 ms, about twenty times a minute.
pub(crate) async fn inject(cluster: &Cluster, recorder: &Recorder, seed: u64, duration: Duration) {
    let mut random = Random::new(seed);
    let mut wait = async |shortest, longest| {
        let wait: i64 = random.between(shortest, longest);
        sleep(Duration::from_millis(wait.unsigned_abs())).await;
        random.below(SIDECARS)
    };
    let until = Instant::now() + duration;
    while Instant::now() < until {
        let sidecar = wait(1000, 4500).await;
        let member = cluster.members[sidecar].lock().await;
        let from = recorder.now().at;
        member.signal("STOP");
        wait(50, 300).await;
        member.signal("CONT");
        recorder.record_fault(Fault {
            name: format!("sidecar pauses ({sidecar})"),
            cuts_redis: false,
            cuts_postgres: false,
            sidecar: Some(sidecar),
            from,
            until: recorder.now().at,
        });
    }
}

/// Starts a cluster, runs the workload with stops, and checks that no caller notices them.
async fn stalls_are_not_noticed(has_cpu_limit: bool, pace: Pace) {
    let _alone = crate::MACHINE.write().await;
    let (cluster, is_undisturbed) = Cluster::start_undisturbed().await;
    let cluster = Arc::new(cluster);
    let mut limit = None;
    if has_cpu_limit {
        match CpuLimit::half_a_core(&cluster.process_ids().await) {
            Ok(created) => limit = Some(created),
            Err(error) => {
                eprintln!("skipped: no control group can be created: {error}");
                return;
            }
        }
    }
    // Without precedence, a busy machine can stop the servers for longer than the sidecars wait.
    let attempts = if is_undisturbed && !has_cpu_limit {
        1
    } else {
        MAX_ATTEMPTS
    };
    for attempt in 1..=attempts {
        cluster.recovers().await;
        let result = run(&cluster, pace, has_cpu_limit).await;
        if let Some(limit) = &limit {
            eprintln!("throttled periods: {}", limit.throttled_periods());
        }
        let Err(noticed) = result else { break };
        eprintln!("attempt {attempt}: callers noticed: {noticed:#?}");
        assert!(attempt < attempts, "callers noticed: {noticed:#?}");
    }
}

/// Runs the workload once, and returns what callers have noticed. With a limit, these are only failed
/// calls: a response of Redis can be late although it has arrived, while the thread that would read it
/// is stopped and another one runs.
async fn run(cluster: &Arc<Cluster>, pace: Pace, has_cpu_limit: bool) -> Result<(), Vec<String>> {
    let seconds = test_support::rounds("CONSISTENCY_STALL_SECONDS", 20);
    let round = Round {
        cluster,
        seed: crate::seed(),
        duration: Duration::from_secs(seconds.into()),
        pace,
    };
    let outages_before = outages(cluster).await;
    let history = round.run(Disturbance::Stalls).await;
    let outages = outages(cluster).await;
    let report = checker::check(&history);
    eprintln!("{report}failures: {:#?}", history.failures);
    assert!(report.violations.is_empty(), "{report}");
    let failures = history.failures.iter();
    let failures = failures.filter(|(text, _)| !RACES.iter().any(|race| text.starts_with(race)));
    let mut noticed: Vec<String> = failures.map(|failure| format!("{failure:?}")).collect();
    if !has_cpu_limit && history.turns_without_session > 0 {
        noticed.push(format!(
            "{} turns without a session",
            history.turns_without_session
        ));
    }
    if !has_cpu_limit && outages != outages_before {
        noticed.push(format!(
            "opened circuit breakers: {outages_before:?}, {outages:?}"
        ));
    }
    if noticed.is_empty() {
        return Ok(());
    }
    cluster.print_logs().await;
    print_failed_operations(cluster).await;
    Err(noticed)
}

/// Number of outages of Redis that each sidecar has counted.
async fn outages(cluster: &Cluster) -> Vec<u64> {
    let pages = metrics(cluster).await.into_iter().map(|page| {
        let mut lines = page.lines().filter(|line| !line.starts_with('#'));
        let line = lines.find(|line| line.starts_with("conversation_memory_redis_outages_total"));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0, |value| value.parse().unwrap())
    });
    pages.collect()
}

/// Prints the failed operations on servers that each sidecar has counted.
async fn print_failed_operations(cluster: &Cluster) {
    for (number, page) in metrics(cluster).await.iter().enumerate() {
        let is_failure = |line: &&str| {
            line.starts_with("db_client_operation_duration_seconds_count")
                && line.contains("error_type=")
        };
        for line in page.lines().filter(is_failure) {
            eprintln!("sidecar {number}: {line}");
        }
    }
}

async fn metrics(cluster: &Cluster) -> Vec<String> {
    let mut pages = Vec::new();
    for member in &cluster.members {
        let operations = member.lock().await.operations;
        let page = Http::at(operations).get("/metrics").await.body;
        pages.push(String::from_utf8(page.to_vec()).unwrap());
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn short_stops_of_sidecars_are_not_noticed() {
    stalls_are_not_noticed(false, Pace::Moderate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_stops_of_sidecars_with_half_a_core_fail_no_call() {
    stalls_are_not_noticed(true, Pace::Fast).await;
}
