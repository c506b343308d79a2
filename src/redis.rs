//! Access to Redis for the modules that store data there: one connection, a
//! circuit breaker, and scripts.
//!
//! This is the only module that uses the client library. A call never waits for an unreachable
//! Redis: when a call remains without a reply and nothing else is received either, the circuit
//! breaker opens, and all others fail at once until the next reply.
//!
//! A connection is never re-established, because its address may belong to another server by then.
//! After a fault it is replaced, and the server is identified again: its identity is the first line
//! of every script.
//!
//! A call that timed out may still be executed later: a frozen Redis reads what
//! is left in its socket when it resumes, in no fixed order relative to what is
//! sent on a new connection. Each script must therefore be safe to execute at any
//! later time.

mod cause;
mod client;
mod connection;
mod driver;
mod fault;
mod instruments;
mod permissions;
mod prepared_scripts;
mod reply_value;
mod script;
mod send_queue;
mod sentinels;
mod server_identity;
mod supervisor;
mod target;
mod write_refusals;

pub use self::{
    client::{HashReply, Redis, RedisSettings},
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
    /// `MASTERDOWN`: the server is a replica without its master.
    #[error("replica without its master")]
    MasterDown,
    /// `CLUSTERDOWN`: the cluster does not serve all hash slots.
    #[error("cluster unavailable")]
    ClusterDown,
    /// `MISCONF`: the server refuses writes because it cannot store its data on disk.
    #[error("cannot persist its data")]
    NotPersistent,
    /// `NOREPLICAS`: the server refuses writes because too few replicas are connected.
    #[error("too few replicas")]
    TooFewReplicas,
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
    /// Whether another connection may reach a server that serves calls.
    fn is_fault_of_connection(self) -> bool {
        matches!(
            self,
            Self::ReadOnly | Self::Loading | Self::MasterDown | Self::ClusterDown
        )
    }

    /// Whether the server replies but refuses to store data.
    fn is_refused_write(self) -> bool {
        matches!(
            self,
            Self::OutOfMemory
                | Self::ReadOnly
                | Self::NotPersistent
                | Self::TooFewReplicas
                | Self::NotAuthorized
        )
    }

    fn kind(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::Loading => "loading",
            Self::MasterDown => "master_down",
            Self::ClusterDown => "cluster_down",
            Self::NotPersistent => "not_persistent",
            Self::TooFewReplicas => "too_few_replicas",
            Self::WrongType => "wrong_type",
            Self::UnknownScript => "unknown_script",
            Self::NotAuthorized => "not_authorised",
            Self::Other => "refused",
        }
    }
}
