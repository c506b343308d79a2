//! Black-box tests of who may call, by which way, and how much: the real binary over
//! TCP, TLS and Unix sockets, gRPC and REST.

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

#[path = "access/authority.rs"]
mod authority;
#[path = "access/claims.rs"]
mod claims;
#[path = "access/client.rs"]
mod client;
#[path = "access/limits.rs"]
mod limits;
#[path = "access/listeners.rs"]
mod listeners;
#[path = "access/tls.rs"]
mod tls;
#[path = "access/tokens.rs"]
mod tokens;

#[path = "support/otlp_sink.rs"]
#[expect(dead_code, reason = "this crate uses a part of it")]
mod otlp_sink;
