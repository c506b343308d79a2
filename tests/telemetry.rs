//! What the real binary says of itself to OpenTelemetry, LangSmith and
//! Prometheus, and how little it minds when they are away.

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

#[path = "telemetry/content.rs"]
mod content;
#[path = "telemetry/conversation.rs"]
mod conversation;
#[path = "telemetry/export.rs"]
mod export;
#[path = "rest/client.rs"]
#[expect(dead_code, reason = "this crate uses a part of it")]
mod http_client;
#[path = "telemetry/langsmith.rs"]
mod langsmith;
#[path = "telemetry/logs.rs"]
mod logs;
#[path = "telemetry/metrics.rs"]
mod metrics;
#[path = "telemetry/observed.rs"]
mod observed;
#[path = "support/otlp_sink.rs"]
mod otlp_sink;
#[path = "support/python.rs"]
mod python;

#[path = "grpc/requests.rs"]
#[expect(dead_code, reason = "this crate uses a part of it")]
mod requests;
#[path = "telemetry/rest.rs"]
mod rest;
#[path = "telemetry/shutdown.rs"]
mod shutdown;
#[path = "telemetry/tree.rs"]
mod tree;
