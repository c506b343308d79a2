//! Black-box tests: the real binary, spoken to over gRPC, embedded and on
//! PostgreSQL and Redis.

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

#[path = "grpc/branches.rs"]
mod branches;
#[path = "grpc/conversations.rs"]
mod conversations;
#[path = "grpc/export.rs"]
mod export;
#[path = "grpc/hostile.rs"]
mod hostile;
#[path = "grpc/import.rs"]
mod import;
#[path = "grpc/requests.rs"]
mod requests;
#[path = "grpc/search.rs"]
mod search;
#[path = "grpc/server.rs"]
mod server;
#[path = "grpc/sessions.rs"]
mod sessions;
#[path = "grpc/turns.rs"]
mod turns;
