use std::fmt::Debug;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What time it is. For what people read only: neither an order nor a TTL
/// comes from it.
pub trait Clock: Send + Sync + Debug {
    /// Now, to the microsecond.
    fn now(&self) -> DateTime<Utc>;
}

/// Where new ids come from.
pub trait IdSource: Send + Sync + Debug {
    /// A UUID that was never given out before.
    fn uuid(&self) -> Uuid;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the clock that others are given"
    )]
    fn now(&self) -> DateTime<Utc> {
        to_micros(Utc::now())
    }
}

/// UUIDv7, which keeps the newest rows of an index together.
#[derive(Clone, Copy, Debug, Default)]
pub struct UuidV7;

impl IdSource for UuidV7 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the id source that others are given"
    )]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}

/// A time cut to the microsecond, which is what both stores keep.
pub fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}
