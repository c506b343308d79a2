//! Isolation of users: two users who name each other's objects make random calls of one sidecar. Each
//! of them receives what a sidecar that serves nobody else returns.
//!
//! `ISOLATION_OPERATIONS` sets the number of operations of each form, and `ISOLATION_SEED` the seed,
//! which determines the operations. The seed is printed, and the last operations are in the failure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod deployment;
mod items;
mod known;
mod messages;
mod normalize;
mod operations;
mod pair;
mod requests;
mod threads;
mod view;

use std::{env, process};

use test_support::rounds;

use crate::{deployment::Deployment, pair::Pair};

/// Number of operations of both users, in total 20,000: most of them with the faster form.
const EMBEDDED_OPERATIONS: u32 = 14_000;
const SERVERS_OPERATIONS: u32 = 6_000;
/// Highest number of pairs of users in one test. A pair ends early if a server was not available in
/// time on a busy machine.
const MAX_PAIRS: usize = 20;
/// Number of times that a quarter of the operations is added because a method never succeeded, or
/// never failed.
const MAX_ADDITIONS: u32 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_of_an_embedded_sidecar_do_not_depend_on_other_users() {
    compare(&Deployment::embedded().await, EMBEDDED_OPERATIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_of_a_sidecar_on_servers_do_not_depend_on_other_users() {
    compare(&Deployment::on_servers().await, SERVERS_OPERATIONS).await;
}

async fn compare(deployment: &Deployment, operations: u32) {
    let operations = rounds("ISOLATION_OPERATIONS", operations);
    let seed = env::var("ISOLATION_SEED")
        .map_or_else(|_| u64::from(process::id()), |seed| seed.parse().unwrap());
    eprintln!("ISOLATION_SEED={seed}");
    let methods = deployment.methods();
    let (mut pending, mut additions) = (operations, MAX_ADDITIONS);
    let mut coverage = pair::Coverage::default();
    for number in 0..MAX_PAIRS {
        let mut pair = Pair::new(deployment, seed, number);
        while pending > 0 {
            let executed = pair.run(pending, &mut coverage).await;
            if executed < pending {
                pending -= executed;
                break;
            }
            let missing = coverage.missing(&methods);
            assert!(
                missing.is_none() || additions > 0,
                "{missing:?} {coverage:?}"
            );
            additions -= u32::from(missing.is_some());
            pending = missing.map_or(0, |_| operations.div_ceil(4));
        }
        if pending == 0 {
            eprintln!("{} pairs of users: {coverage:?}", number + 1);
            return;
        }
    }
    panic!("the servers were not available in time for {MAX_PAIRS} pairs of users");
}
