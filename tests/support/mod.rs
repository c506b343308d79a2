//! What the test crates share.

#![allow(dead_code, unused_macros, reason = "each test crate uses a part of it")]

/// Runs each case in both forms.
macro_rules! in_both_forms {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::support::sidecar::Form::embedded()).await;
            })*
        }
        mod on_servers {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::support::sidecar::Form::servers()).await;
            })*
        }
    };
}

pub(crate) mod postgres_server;
pub(crate) mod redis_server;
pub(crate) mod sidecar;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up waiting for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A user that no other test knows.
pub(crate) fn new_user() -> String {
    format!("user-{}", new_id())
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A variable without which the tests mean nothing.
pub(crate) fn given(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `make test`"))
}
