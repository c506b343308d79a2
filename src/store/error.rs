use std::{error::Error, fmt};

/// Error of a store, classified where it occurred. The source is written to the log and never
/// sent to the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such conversation, or another user owns it.
    #[error("conversation not found")]
    NotFound,
    /// The conversation does not contain a message.
    #[error("message {seq} not found")]
    MessageNotFound {
        /// Number of the message.
        seq: i64,
    },
    /// The conversation does not end at the expected number.
    #[error("the conversation ends at {current_seq}")]
    Conflict {
        /// Last number of the conversation.
        current_seq: i64,
    },
    /// The conversation ends before the requested number.
    #[error("the conversation ends at {last_seq}, before {field}")]
    BeyondEnd {
        /// Name of the argument that exceeds the end.
        field: &'static str,
        /// Last number of the conversation.
        last_seq: i64,
    },
    /// A branch would exceed the maximum depth of branches.
    #[error("the branch would be more than {max} branches deep")]
    TooDeep {
        /// Maximum depth.
        max: i64,
    },
    /// A conversation and its branches are too many to be transferred at once.
    #[error("the conversation and its branches are too many")]
    FamilyTooLarge,
    /// The version that begins a list is not stored, or has fewer items.
    #[error("the base of a list is not stored")]
    BaseVersionMissing,
    /// Data that a value refers to is not stored.
    #[error("referenced data is not stored")]
    ContentMissing,
    /// A checkpoint has as many writes as it can have.
    #[error("the checkpoint has writes of {max} calls")]
    TooManyWrites {
        /// Maximum number of calls.
        max: u32,
    },
    /// A checkpoint does not fit into a response.
    #[error("the checkpoint does not fit into a response")]
    CheckpointTooLarge,
    /// The conversation has checkpoints, which contain its messages.
    #[error("the conversation has checkpoints")]
    HasCheckpoints,
    /// A search exceeded its time limit.
    #[error("the search exceeded its limit")]
    SearchTooExpensive,
    /// The limit on concurrent searches is reached.
    #[error("the limit on concurrent searches is reached")]
    TooManySearches,
    /// The limit on the saves that wait for others is reached. Nothing was written.
    #[error("the limit on waiting saves is reached")]
    TooManySaves,
    /// The limit on concurrent exports and imports is reached.
    #[error("the limit on concurrent exports and imports is reached")]
    TooManyTransfers,
    /// An id or an idempotency key is in use with other content.
    #[error("{0} is in use with other content")]
    AlreadyExists(ReusedKey),
    /// The store cannot be reached or is overloaded. Nothing was written.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The store's disk is full. Nothing was written, and reads still succeed.
    #[error("the disk of the store is full")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// The connection or the disk failed while a write may have been committed.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown(#[source] Box<dyn Error + Send + Sync>),
    /// A defect of this program or of the store.
    #[error("the store failed")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

/// Kind of a key that was used a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReusedKey {
    /// Id of a conversation.
    ConversationId,
    /// Id of a message.
    MessageId,
    /// Idempotency key of a request.
    RequestId,
}

impl fmt::Display for ReusedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConversationId => "conversation id",
            Self::MessageId => "message id",
            Self::RequestId => "request id",
        })
    }
}

/// Reason why a store's schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The schema is older than this program, and must be migrated first.
    #[error(
        "the database's schema is at version {found}, this program needs {wanted}: run `conversation-memory migrate`"
    )]
    Older {
        /// Version of the schema, 0 if there is none.
        found: i64,
        /// Version that this program needs.
        wanted: i64,
    },
    /// The schema is older than this program, and cannot be migrated through a pooler.
    #[error(
        "the database's schema has to be migrated, which a pooler in transaction mode does not support: set MIGRATION_DATABASE_URL to the address of PostgreSQL itself"
    )]
    NeedsMigrationUrl,
    /// The connection that migrates leads to another database or schema.
    #[error(
        "MIGRATION_DATABASE_URL leads to {found}, which is not the database and schema that this program uses ({used}): nothing was migrated"
    )]
    OtherDatabase {
        /// Database and schema of the connection that migrates.
        found: String,
        /// Database and schema that the program uses.
        used: String,
    },
    /// A newer program has migrated the schema.
    #[error(
        "the database's schema is at version {found}, newer than this program supports ({wanted}): run the newer program"
    )]
    Newer {
        /// Version of the schema.
        found: i64,
        /// Latest version that this program supports.
        wanted: i64,
    },
    /// An applied migration differs from the one of this program.
    #[error("migration {version} of the database differs from the one of this program")]
    Changed {
        /// Version of the migration.
        version: i64,
    },
    /// The database cannot store every text, or not in the same form.
    #[error("{0}")]
    Encoding(String),
    /// The server's version is not supported.
    #[error("PostgreSQL {found} is not supported: version 14 or a newer one is required")]
    Version {
        /// Version of the server.
        found: String,
    },
    /// The store cannot be reached.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A migration failed.
    #[error("a migration failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl SchemaError {
    /// Returns the message and, if there is one, the cause, on one line.
    pub fn with_cause(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}
