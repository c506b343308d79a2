use std::error::Error;

/// Why a store refused or failed. Classified where it arose, once; the cause is
/// for the log and never for the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such conversation, or it is another user's.
    #[error("no such conversation")]
    NotFound,
    /// The conversation does not end where the caller expected.
    #[error("the conversation ends at {current_seq}")]
    Conflict {
        /// Where it ends.
        current_seq: i64,
    },
    /// A number was named that the conversation has not come to.
    #[error("the conversation ends at {last_seq}")]
    BeyondEnd {
        /// Where it ends.
        last_seq: i64,
    },
    /// An id or key is taken, with other content.
    #[error("{0:?} is in use with other content")]
    AlreadyExists(Reused),
    /// The store cannot be reached or is too busy. Nothing was written.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The connection was lost while a write may have been on its way to disk.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown(#[source] Box<dyn Error + Send + Sync>),
    /// A bug, here or in the store.
    #[error("the store failed")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

/// What was used a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reused {
    /// A conversation's id.
    ConversationId,
    /// A message's id.
    MessageId,
    /// An idempotency key.
    RequestId,
}

/// Why a store's schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is of an older version, and migrating was not asked for.
    #[error(
        "the database's schema is at version {found}, this program needs {wanted}: run `conversation-memory migrate`"
    )]
    Older {
        /// The schema's version, 0 when there is none.
        found: i64,
        /// The version that this program needs.
        wanted: i64,
    },
    /// It was made by a newer program.
    #[error(
        "the database's schema is at version {found}, newer than this program, which knows {wanted}: run the newer program"
    )]
    Newer {
        /// The schema's version.
        found: i64,
        /// The version that this program knows.
        wanted: i64,
    },
    /// A migration that was applied differs from the one that this program has.
    #[error("migration {version} of the database is not the one that this program has")]
    Changed {
        /// Which.
        version: i64,
    },
    /// The store cannot be reached.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A migration failed.
    #[error("a migration failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl SchemaError {
    /// What is wrong and, where there is one, its cause, in one line.
    pub fn in_full(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}
