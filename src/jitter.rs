//! Random times, so that processes that started together do not act at the same time.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Returns a time from `min` to `max`.
pub(crate) fn between(min: Duration, max: Duration) -> Duration {
    // The keys of a new hasher differ, and nothing else here needs a generator of random numbers.
    let [random, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    min + max.saturating_sub(min) * u32::from(random) / u32::from(u8::MAX)
}
