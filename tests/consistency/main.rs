//! History checker: concurrent clients of several sidecars record every call, and afterwards the
//! calls are checked against a model of the conversations, while servers, sidecars and connections
//! fail.
//!
//! `CONSISTENCY_SECONDS` sets the duration, `CONSISTENCY_SEED` repeats the choices of a run, and
//! `CONSISTENCY_FAULTS` selects faults whose names contain one of several texts (`redis,silent`).

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod checker;
mod clients;
mod cluster;
mod failovers;
mod faults;
mod forks;
mod history;
mod model;
mod mutations;
mod outcome;
mod reads;
mod recorded;
mod redis_topologies;
mod report;
mod round;
mod stalls;
mod store_state;
mod synthetic;
mod targets;
mod workload;
mod writes;

use std::{
    env,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::RwLock;

use crate::{
    cluster::Cluster,
    round::{Disturbance, Round, Totals},
    workload::Pace,
};

/// Duration of one round, whose history is checked and dropped.
const ROUND: Duration = Duration::from_secs(15);

/// Shared by the tests that keep the processors busy. Those that measure how promptly sidecars react
/// use the machine alone.
static MACHINE: RwLock<()> = RwLock::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_consistent_under_mixed_faults() {
    let _shared = MACHINE.read().await;
    let seconds = test_support::rounds("CONSISTENCY_SECONDS", 60);
    let seed = seed();
    let faults = env::var("CONSISTENCY_FAULTS").unwrap_or_default();
    let faults: Vec<String> = faults
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let cluster = Arc::new(Cluster::start().await);
    let started = Instant::now();
    let mut totals = Totals::default();
    for number in 0.. {
        if started.elapsed() >= Duration::from_secs(seconds.into()) {
            break;
        }
        let round = Round {
            cluster: &cluster,
            seed: seed.wrapping_add(number),
            duration: ROUND,
            pace: Pace::Fast,
        };
        let history = round.run(Disturbance::Faults(&faults)).await;
        totals.add(&history);
    }
    totals.assert_consistent(seed);
}

/// Seed of the random choices, which is printed.
fn seed() -> u64 {
    let seed = env::var("CONSISTENCY_SEED").map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            now.unwrap().as_secs()
        },
        |seed| seed.parse().unwrap(),
    );
    eprintln!("CONSISTENCY_SEED={seed}");
    seed
}
