//! Servers, clients and requests that the suites in `tests/` and the benchmarks share.

#![expect(
    clippy::disallowed_methods,
    reason = "the suites are their own composition roots: they read the environment, generate ids and spawn tasks"
)]

pub mod cpu_limit;
pub mod http;
pub mod json_grpc;
pub mod otlp_sink;
pub mod pgbouncer;
pub mod ports;
pub mod postgres_server;
pub mod python;
pub mod random;
pub mod raw_http2;
pub mod redis_cluster;
pub mod redis_server;
pub mod replicated;
pub mod requests;
pub mod sentinel_group;
pub mod sidecar;
pub mod stopwatch;
pub mod store_fixture;
pub mod tcp_proxy;
pub mod window;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Defines two tests of each case: with the embedded store, and with PostgreSQL and Redis.
#[macro_export]
macro_rules! in_both_forms {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::sidecar::Form::embedded()).await;
            })*
        }
        mod on_servers {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::sidecar::Form::servers()).await;
            })*
        }
    };
}

/// Longest time that a test waits without any progress. It only ends a test that hangs, so it is
/// far longer than any wait on a busy machine.
pub const STALL_LIMIT: Duration = Duration::from_mins(2);

/// Interval between two observations of a condition that a test waits for.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until a condition is met. `what` names the condition in the failure.
pub async fn eventually(what: &str, is_met: impl AsyncFnMut() -> bool) {
    within_progress(what, is_met, |is_met| *is_met).await;
}

/// Observes a value until it is the awaited one, and returns it. The wait may take as long as the
/// value keeps changing; it fails when the value stays the same for [`STALL_LIMIT`].
pub async fn within_progress<T: PartialEq + Debug>(
    what: &str,
    mut observe: impl AsyncFnMut() -> T,
    is_awaited: impl Fn(&T) -> bool,
) -> T {
    let mut latest = observe().await;
    let mut changed = Instant::now();
    while !is_awaited(&latest) {
        assert!(
            changed.elapsed() < STALL_LIMIT,
            "no progress for {STALL_LIMIT:?}: {what}; the latest value is {latest:?}"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
        let value = observe().await;
        if value != latest {
            changed = Instant::now();
            latest = value;
        }
    }
    latest
}

/// Waits for a future that is certain to end. `what` names it in the failure.
pub async fn completes<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(STALL_LIMIT, future)
        .await
        .unwrap_or_else(|_| panic!("timed out after {STALL_LIMIT:?}: {what}"))
}

/// Creates the id of a user that no other test uses.
pub fn new_user() -> String {
    format!("user-{}", new_id())
}

/// Creates a `UUIDv7` as text.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// Returns the number of rounds of a test: `default`, or the value of an environment variable, with
/// which it can be run longer.
pub fn rounds(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Returns the value of an environment variable that `tests/with-servers` sets.
pub fn required_variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}
