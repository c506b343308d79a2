use super::{ErrorReply, cause::IS_SENTINEL};

/// Reason why a connection cannot be opened or must be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// The connection broke or could not be opened.
    #[error("{0}")]
    Failed(String),
    /// Nothing was received, although a request is outstanding.
    #[error("no reply in time")]
    Silent,
    /// Nothing was received through TLS while the connection was opened.
    #[error(
        "no reply through TLS in time; a server without TLS needs a REDIS_URL that begins with redis \
         instead of rediss"
    )]
    TlsSilent,
    #[error(
        "the configured server is no sentinel; REDIS_URL must name sentinels, or begin with redis:// \
         and name the server"
    )]
    NoSentinel,
    /// No sentinel has returned the address of the master, for this reason.
    #[error("from a sentinel: {0}")]
    Sentinel(Box<Fault>),
    #[error("{IS_SENTINEL}")]
    IsSentinel,
    #[error("the server is a replica")]
    Replica,
    #[error("Redis is loading its data (LOADING)")]
    Loading,
    /// The server, or a master of the cluster, is another one than when the connection was opened.
    #[error("the replication history or the set of masters has changed")]
    OtherHistory,
    #[error(
        "the sentinels do not know a master of this name; sentinelServiceName in REDIS_URL must name one"
    )]
    UnknownMaster,
    #[error("the sentinels name another master")]
    OtherMaster,
    /// The user may not execute a command of the client itself.
    #[error("{0}")]
    Denied(String),
    #[error("Redis replied with an error: {0}")]
    ErrorReply(ErrorReply),
}
