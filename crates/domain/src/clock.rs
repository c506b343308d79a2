use std::fmt::Debug;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::to_micros;

/// Source of wall-clock times.
///
/// The times are informational: no order and no TTL depends on them, since a wall
/// clock can be set back.
pub trait Clock: Send + Sync + Debug {
    /// Current time, to the microsecond.
    fn now(&self) -> DateTime<Utc>;
}

/// Source of ids.
pub trait IdSource: Send + Sync + Debug {
    /// Generates a unique UUID.
    fn uuid(&self) -> Uuid;
}

/// Wall clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one clock that reads the system time; others receive it as an argument"
    )]
    fn now(&self) -> DateTime<Utc> {
        to_micros(Utc::now())
    }
}

/// Generator of UUIDv7, which keep the newest rows of an index together.
#[derive(Clone, Copy, Debug, Default)]
pub struct UuidV7;

impl IdSource for UuidV7 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one source of random ids; others receive it as an argument"
    )]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }
}
