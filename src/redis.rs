//! Redis, for the rooms that use it: one connection, a breaker, scripts.
//!
//! This is the one room that knows the client library. A call never waits for a
//! Redis that is away: the first one that fails opens the breaker, all others
//! fail at once, and a task of its own asks Redis until it answers again.
//!
//! A call that was given up may still be executed: a frozen Redis reads what
//! lies in its socket when it thaws, in no order with what is sent on a new
//! connection. So a script must be safe to execute at any later time.

mod cause;
mod client;
mod observed;
mod script;
mod target;

pub use self::{
    client::{Redis, RedisSettings},
    script::{Reply, Script},
    target::{BadRedisUrl, RedisTarget},
};

/// Why a call on Redis failed. It carries neither keys nor values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// Redis is away; nothing was sent.
    #[error("Redis is unavailable")]
    Unavailable,
    /// No answer came in time or the connection broke: the call may have been
    /// executed, or may yet be.
    #[error("Redis did not answer")]
    Unanswered,
    /// Redis answered that it won't.
    #[error("Redis refused: {0}")]
    Refused(Refusal),
    /// Redis answered something that makes no sense here.
    #[error("Redis gave an unexpected answer")]
    Unexpected,
}

impl RedisError {
    /// One word for it, out of a few, for spans and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Unanswered => "unanswered",
            Self::Refused(refusal) => refusal.kind(),
            Self::Unexpected => "unexpected",
        }
    }
}

/// What Redis said when it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has reached its memory limit.
    #[error("out of memory")]
    OutOfMemory,
    /// It is a replica.
    #[error("read-only")]
    ReadOnly,
    /// It is still loading its data.
    #[error("loading")]
    Loading,
    /// The key holds another type.
    #[error("wrong type")]
    WrongType,
    /// It does not know the script.
    #[error("unknown script")]
    NoScript,
    /// It wants other credentials.
    #[error("not authorised")]
    Auth,
    /// Anything else.
    #[error("other error")]
    Other,
}

impl Refusal {
    fn kind(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::WrongType => "wrong_type",
            Self::NoScript => "unknown_script",
            Self::Auth => "not_authorised",
            Self::Other => "refused",
        }
    }
}
