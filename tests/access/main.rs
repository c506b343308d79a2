//! Black-box tests of who may call, by which way, and how much: the real binary over
//! TCP, TLS and Unix sockets, gRPC and REST.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod authority;
mod claims;
mod client;
mod limits;
mod listeners;
mod startup;
mod tls;
mod tokens;
