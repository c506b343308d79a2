//! Attacks on a sidecar. During each of them, an unrelated caller performs a turn every 100 ms: all of
//! its calls succeed, and the memory of the process stays bounded.
//!
//! The section `attacks` of the benchmarks measures how long these turns take.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is its own composition root"
)]

mod connections;
mod reads;
mod shares;
mod streams;
mod tokens;
mod turns;
mod windows;
mod writes;
