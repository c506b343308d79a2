//! What the real binary says of itself to OpenTelemetry, LangSmith and
//! Prometheus, and how little it minds when they are away.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod content;
mod conversation;
mod export;
mod langsmith;
mod logs;
mod metrics;
mod observed;

mod rest;
mod shutdown;
mod tree;
