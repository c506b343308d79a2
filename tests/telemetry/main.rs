//! Traces, metrics and logs of the real binary, exported to OpenTelemetry collectors,
//! LangSmith and Prometheus, and its behavior while they are unavailable.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod checkpoints;
mod content;
mod conversation;
mod export;
mod langsmith;
mod logs;
mod metrics;
mod observed;
mod outages;
mod rejections;
mod rejections_when_busy;
mod rest;
mod shutdown;
mod tree;
