//! Black-box tests over HTTP with JSON: the real binary, embedded and on PostgreSQL
//! and Redis.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

#[macro_use]
#[path = "support/mod.rs"]
mod support;

#[path = "support/python.rs"]
mod python;

#[path = "rest/answers.rs"]
mod answers;
#[path = "rest/both_ways.rs"]
mod both_ways;
#[path = "rest/caller.rs"]
mod caller;
#[path = "rest/client.rs"]
mod client;
#[path = "rest/described.rs"]
mod described;
#[path = "rest/errors.rs"]
mod errors;
#[path = "rest/hostile.rs"]
mod hostile;
#[path = "rest/recorder.rs"]
mod recorder;
#[path = "rest/routes.rs"]
mod routes;
#[path = "rest/slow.rs"]
mod slow;
#[path = "rest/trespass.rs"]
mod trespass;
