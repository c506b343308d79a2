//! Metrics and spans of the Redis client, the recent windows and the connection
//! pools, read with an in-memory exporter.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod meter;
mod pools;
mod redis;
mod windows;
