//! Access to Redis for the modules that store data there: one connection, a
//! circuit breaker, and scripts.
//!
//! This is the only module that uses the client library. A call never waits for an unreachable
//! Redis: the first call that fails opens the circuit breaker, all others fail at once, and a
//! background task probes Redis until it replies.
//!
//! A call that timed out may still be executed later: a frozen Redis reads what
//! is left in its socket when it resumes, in no fixed order relative to what is
//! sent on a new connection. Each script must therefore be safe to execute at any
//! later time.

mod cause;
mod client;
mod instruments;
mod prepared_scripts;
mod script;
mod target;

pub use self::{
    client::{Redis, RedisSettings},
    script::{Reply, Script},
    target::{InvalidRedisUrl, RedisTarget},
};

/// Error of a call on Redis. It contains neither keys nor values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// The circuit breaker is open; nothing was sent.
    #[error("Redis is unavailable")]
    Unavailable,
    /// The call timed out or the connection broke: the call may have been
    /// executed, or may still be executed.
    #[error("Redis did not reply")]
    NoReply,
    /// Redis replied with an error.
    #[error("Redis replied with an error: {0}")]
    ErrorReply(ErrorReply),
    /// The reply does not have the expected type or content.
    #[error("unexpected reply from Redis")]
    UnexpectedReply,
}

impl RedisError {
    /// Value of the attribute `error.type` in spans and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::NoReply => "unanswered",
            Self::ErrorReply(reply) => reply.kind(),
            Self::UnexpectedReply => "unexpected",
        }
    }
}

/// Error that Redis replied with, by its error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorReply {
    /// `OOM`: the memory limit is reached.
    #[error("out of memory")]
    OutOfMemory,
    /// `READONLY`: the server is a replica.
    #[error("read-only replica")]
    ReadOnly,
    /// `LOADING`: the server is still loading its data.
    #[error("loading data")]
    Loading,
    /// `WRONGTYPE`: the key contains a value of another type.
    #[error("wrong type of key")]
    WrongType,
    /// `NOSCRIPT`: the server does not know the script.
    #[error("unknown script")]
    UnknownScript,
    /// `NOAUTH`, `WRONGPASS` or `NOPERM`: the credentials are missing, wrong or lack a
    /// permission.
    #[error("not authorized")]
    NotAuthorized,
    /// Any other error code.
    #[error("other error")]
    Other,
}

impl ErrorReply {
    fn kind(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::WrongType => "wrong_type",
            Self::UnknownScript => "unknown_script",
            Self::NotAuthorized => "not_authorised",
            Self::Other => "refused",
        }
    }
}
