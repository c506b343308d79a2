//! Random histories of the real binary: a history is the same from the recent window, through every
//! sidecar, and from the store, and it is one that model APIs accept.
//!
//! `HISTORIES` sets the number of conversations. Conversation `n` is the same in every run; its
//! steps are in the failure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod checker;
mod family;
mod messages;
mod reference;

use std::{cell::Cell, env, net::SocketAddr};

use futures_util::future::join_all;

use test_support::{
    http::Http,
    redis_server,
    sidecar::{Form, Sidecar},
};

use crate::family::Family;

test_support::in_both_forms!(random_histories_are_valid_and_independent_of_their_source);

/// Number of conversations if `HISTORIES` is not set.
const DEFAULT_CONVERSATIONS: u64 = 24;
/// Number of conversations that are tested at the same time.
const CONCURRENCY: usize = 8;

/// What the conversations share.
struct Fixture {
    /// Two sidecars, or one that owns the embedded store.
    sidecars: Vec<Sidecar>,
    /// Their operations ports.
    operations: Vec<SocketAddr>,
    /// Server with the windows; `None` in the embedded form.
    redis_url: Option<String>,
    /// Number of histories that were checked.
    checked: Cell<u64>,
    /// Number of histories that a window returned.
    cached: Cell<u64>,
    /// Number of histories from a window that became right only later, because a sidecar could not
    /// reach Redis in time.
    late: Cell<u64>,
}

impl Fixture {
    async fn new(form: &Form) -> Self {
        // Estimated counts need no tables.
        let settings = [("TOKEN_ENCODING", "none")];
        let mut sidecars = vec![Sidecar::start_with(form, &settings).await];
        let mut redis_url = None;
        if let Form::Servers { redis_url: url, .. } = form {
            sidecars.push(Sidecar::start_with(form, &settings).await);
            redis_url = Some(url.clone());
        }
        let mut operations = Vec::new();
        for sidecar in &mut sidecars {
            operations.push(sidecar.operations().await);
        }
        Self {
            sidecars,
            operations,
            redis_url,
            checked: Cell::default(),
            cached: Cell::default(),
            late: Cell::default(),
        }
    }

    /// Whether a call of a sidecar on Redis has failed. A window can then be late.
    async fn has_failed_on_redis(&self) -> bool {
        for address in &self.operations {
            let page = Http::at(*address).get("/metrics").await;
            let page = String::from_utf8(page.body.to_vec()).unwrap();
            let is_failure = |line: &str| {
                line.starts_with("db_client_operation_duration_seconds_count")
                    && line.contains("db_system_name=\"redis\"")
                    && line.contains("error_type=")
            };
            if page.lines().any(is_failure) {
                return true;
            }
        }
        false
    }

    /// Calls a command of Redis, if there is one, and returns its reply.
    async fn redis(&self, command: &[&str]) -> Option<String> {
        let url = self.redis_url.as_ref()?;
        Some(redis_server::call(url, command).await.unwrap())
    }
}

async fn random_histories_are_valid_and_independent_of_their_source(form: Form) {
    let conversations =
        env::var("HISTORIES").map_or(DEFAULT_CONVERSATIONS, |number| number.parse().unwrap());
    let first: u64 = env::var("FIRST_HISTORY").map_or(0, |number| number.parse().unwrap());
    let fixture = Fixture::new(&form).await;
    join_all((0..CONCURRENCY).map(async |offset| {
        let numbers = (first..first + conversations).skip(offset);
        for number in numbers.step_by(CONCURRENCY) {
            Family::new(&fixture, number).await.run().await;
        }
    }))
    .await;
    let (checked, cached, late) = (
        fixture.checked.get(),
        fixture.cached.get(),
        fixture.late.get(),
    );
    eprintln!(
        "{conversations} conversations, {checked} histories, {cached} of them from a window, {late} late"
    );
    assert!(cached > 0 || fixture.redis_url.is_none());
}
