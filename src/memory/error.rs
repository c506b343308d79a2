use std::fmt;

use crate::{
    domain::{ConversationId, SessionId},
    sessions::SessionsUnavailable,
    store::{MAX_FAMILY_CONVERSATIONS, MAX_FAMILY_MESSAGES, ReusedKey, StoreError},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error of a use case. `rpc::status` maps it to a gRPC status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resource does not exist or belongs to another user. The two cases are
    /// indistinguishable.
    #[error("no such {0}")]
    NotFound(Resource),
    /// The conversation does not end at the number that the caller expected.
    #[error("the conversation ends at message {current_seq}, which differs from the expected one")]
    SeqMismatch {
        /// Number that the conversation ends at.
        current_seq: i64,
    },
    /// The caller requires a message that has not been saved.
    #[error("the conversation ends at message {last_seq}, before the required one")]
    MinSeqNotReached {
        /// Number that the conversation ends at.
        last_seq: i64,
    },
    /// The request references a message that the conversation does not contain yet.
    #[error("the conversation ends at message {last_seq}, before the referenced one")]
    BeyondEnd {
        /// Name of the field that references it.
        field: &'static str,
        /// Number that the conversation ends at.
        last_seq: i64,
    },
    /// A branch would exceed the maximum depth of branches.
    #[error("the branch would be more than {max} branches deep")]
    BranchTooDeep {
        /// Maximum depth.
        max: i64,
    },
    /// A conversation and its branches are too many to be transferred at once.
    #[error("the conversation and its branches are too many")]
    FamilyTooLarge {
        /// Maximum number of conversations.
        conversations: u32,
        /// Maximum number of messages.
        messages: u32,
    },
    /// The version that begins a list of a checkpoint is not stored, or has fewer items.
    #[error("the base version of a list is not stored")]
    BaseVersionMissing,
    /// Data that a checkpoint refers to is not stored.
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
    /// Messages cannot be removed from a conversation with checkpoints.
    #[error("the conversation has checkpoints")]
    HasCheckpoints,
    /// A search exceeded its limit. The same search exceeds it again.
    #[error("the search exceeded its limit")]
    SearchTooExpensive,
    /// The limit on concurrent searches is reached.
    #[error("the limit on concurrent searches is reached")]
    TooManySearches,
    /// The limit on the saves that wait for others is reached. Nothing was written.
    #[error("the limit on waiting saves is reached")]
    TooManySaves,
    /// The limit on concurrent reads from the store is reached.
    #[error("the limit on concurrent reads is reached")]
    TooManyReads,
    /// The caller has not read as many bytes of responses as are permitted.
    #[error("the responses that callers have not read exceed their limit of {max} bytes")]
    TooManyResponseBytes {
        /// Limit on the bytes of all responses that callers have not read.
        max: usize,
    },
    /// The limit on concurrent exports and imports is reached.
    #[error("the limit on concurrent exports and imports is reached")]
    TooManyTransfers,
    /// An id or idempotency key was used before with different content.
    #[error("{0} was used before with different content")]
    Reused(ReusedKey),
    /// The store or the session tier cannot be reached. Nothing was written.
    #[error("the store or session tier is unavailable")]
    Unavailable(#[source] BoxError),
    /// The disk of the store is full. Nothing was written.
    #[error("the disk of the store is full")]
    StoreFull(#[source] BoxError),
    /// The limit on concurrent writes is reached. Nothing was written.
    #[error("the limit on concurrent writes is reached")]
    Overloaded,
    /// A write may or may not have been committed.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown {
        /// Whether the same request can be repeated without a second effect.
        retry_is_safe: bool,
        /// Error that interrupted the write.
        #[source]
        cause: BoxError,
    },
    /// A defect of this program or of the store.
    #[error("internal error")]
    Internal(#[source] BoxError),
}

/// Resource that was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A conversation.
    Conversation(ConversationId),
    /// A session.
    Session(SessionId),
    /// A message of a conversation.
    Message(ConversationId, i64),
    /// A checkpoint of a conversation.
    Checkpoint(ConversationId),
    /// A binary part of a message.
    Blob(ConversationId, i64, usize),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversation(id) => write!(f, "conversation {id}"),
            Self::Session(id) => write!(f, "session {id}"),
            Self::Message(id, seq) => write!(f, "message {seq} of conversation {id}"),
            Self::Checkpoint(id) => write!(f, "checkpoint of conversation {id}"),
            Self::Blob(id, seq, part) => {
                write!(
                    f,
                    "blob in part {part} of message {seq} of conversation {id}"
                )
            }
        }
    }
}

impl Error {
    /// Converts an error of a read, or of a write whose retry is safe.
    pub(super) fn from_store(error: StoreError, conversation: ConversationId) -> Self {
        Self::from_write(error, conversation, true)
    }

    /// Converts an error of a read that is not about a single conversation.
    pub(super) fn from_query(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) | StoreError::OutcomeUnknown(cause) => {
                Self::Unavailable(cause)
            }
            StoreError::Full(cause) => Self::StoreFull(cause),
            StoreError::SearchTooExpensive => Self::SearchTooExpensive,
            StoreError::TooManySearches => Self::TooManySearches,
            StoreError::TooManyTransfers => Self::TooManyTransfers,
            other => Self::Internal(Box::new(other)),
        }
    }

    /// Converts an error of a write of items, whose retry is safe.
    pub(super) fn from_item_write(error: StoreError) -> Self {
        match error {
            StoreError::OutcomeUnknown(cause) => Self::OutcomeUnknown {
                retry_is_safe: true,
                cause,
            },
            other => Self::from_query(other),
        }
    }

    /// Converts an error of a write to a conversation. `retry_is_safe` is whether the same
    /// write can be repeated without a second effect.
    pub(super) fn from_write(
        error: StoreError,
        conversation: ConversationId,
        retry_is_safe: bool,
    ) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound(Resource::Conversation(conversation)),
            StoreError::MessageNotFound { seq } => {
                Self::NotFound(Resource::Message(conversation, seq))
            }
            StoreError::Conflict { current_seq } => Self::SeqMismatch { current_seq },
            StoreError::BeyondEnd { field, last_seq } => Self::BeyondEnd { field, last_seq },
            StoreError::TooDeep { max } => Self::BranchTooDeep { max },
            StoreError::FamilyTooLarge => Self::FamilyTooLarge {
                conversations: MAX_FAMILY_CONVERSATIONS,
                messages: MAX_FAMILY_MESSAGES,
            },
            StoreError::BaseVersionMissing => Self::BaseVersionMissing,
            StoreError::ContentMissing => Self::ContentMissing,
            StoreError::CheckpointTooLarge => Self::CheckpointTooLarge,
            StoreError::TooManyWrites { max } => Self::TooManyWrites { max },
            StoreError::HasCheckpoints => Self::HasCheckpoints,
            StoreError::AlreadyExists(what) => Self::Reused(what),
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            StoreError::Full(cause) => Self::StoreFull(cause),
            StoreError::OutcomeUnknown(cause) => Self::OutcomeUnknown {
                retry_is_safe,
                cause,
            },
            StoreError::SearchTooExpensive => Self::SearchTooExpensive,
            StoreError::TooManySearches => Self::TooManySearches,
            StoreError::TooManyTransfers => Self::TooManyTransfers,
            StoreError::TooManySaves => Self::TooManySaves,
            StoreError::Internal(cause) => Self::Internal(cause),
        }
    }
}

impl From<SessionsUnavailable> for Error {
    fn from(error: SessionsUnavailable) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
