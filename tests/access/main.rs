//! Black-box tests of authentication, listeners and limits: the real binary over TCP, TLS and
//! Unix sockets, with gRPC and REST.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod authority;
mod client;
mod commands;
mod files;
mod limits;
mod listeners;
mod operators;
mod owners;
mod startup;
mod tls;
mod tokens;
mod web;
