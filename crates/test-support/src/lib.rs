//! Servers, clients and requests that the suites in `tests/` and the benchmarks share.

#![expect(
    clippy::disallowed_methods,
    reason = "the suites are their own composition roots: they read the environment, make ids and spawn tasks"
)]

pub mod http;
pub mod otlp_sink;
pub mod postgres_server;
pub mod python;
pub mod redis_server;
pub mod requests;
pub mod sidecar;
pub mod window;
pub mod world;

use std::time::{Duration, Instant};

/// Makes each case a test on the embedded form and a test on PostgreSQL and Redis.
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

/// How long anything may take before a test gives up waiting for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A user that no other test knows.
pub fn new_user() -> String {
    format!("user-{}", new_id())
}

pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A variable without which the tests mean nothing.
pub fn given(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}
