//! What operators are told by the rooms that know it first: how Redis, the recent
//! windows and the pools of connections fare.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod meter;
mod pools;
mod redis;
mod windows;
