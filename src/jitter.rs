//! Random times, so that processes that started together do not act at the same time.

use std::time::Duration;

use uuid::Uuid;

/// Returns a time from `min` to `max`.
pub(crate) fn between(min: Duration, max: Duration) -> Duration {
    // The end of such an id is random. One byte is enough here.
    let [.., random] = Uuid::now_v7().into_bytes();
    min + max.saturating_sub(min) * u32::from(random) / u32::from(u8::MAX)
}
