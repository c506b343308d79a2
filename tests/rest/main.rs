//! Black-box tests over HTTP with JSON: the real binary, embedded and with PostgreSQL and Redis.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod both_protocols;
mod caller;
mod errors;
mod hostile;
mod isolation;
mod numbers;
mod openapi;
mod parts;
mod recorder;
mod responses;
mod routes;
mod slow;
