//! What operators are told by the rooms that know it first: how Redis, the recent
//! windows and the pools of connections fare.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "instruments/meter.rs"]
mod meter;
#[path = "instruments/pools.rs"]
mod pools;
#[path = "instruments/redis.rs"]
mod redis;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/window.rs"]
mod window;
#[path = "instruments/windows.rs"]
mod windows;
#[path = "store/world.rs"]
#[allow(dead_code, reason = "the tests of the stores use all of it")]
mod world;
