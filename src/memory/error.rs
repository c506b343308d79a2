use crate::{
    domain::{ConversationId, SessionId},
    sessions::SessionsUnavailable,
    store::{ReusedKey, StoreError},
};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a use case refused or failed. What a caller is told of it is decided in
/// one place, `rpc::status`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it is another user's: the two look the same.
    #[error("no such {0:?}")]
    NotFound(Resource),
    /// The conversation does not end where the caller expected.
    #[error("the conversation ends at {current_seq}")]
    SeqMismatch {
        /// Where it ends.
        current_seq: i64,
    },
    /// The caller asked for a message that has not been saved.
    #[error("the conversation ends at {last_seq}")]
    MinSeqNotReached {
        /// Where it ends.
        last_seq: i64,
    },
    /// A number was named that the conversation has not come to.
    #[error("the conversation ends at {last_seq}")]
    BeyondEnd {
        /// Where it ends.
        last_seq: i64,
    },
    /// An id or key is taken, with other content.
    #[error("{0:?} is in use with other content")]
    Reused(ReusedKey),
    /// A tier that the call needs cannot be reached. Nothing was written.
    #[error("unavailable")]
    Unavailable(#[source] Cause),
    /// Too many writes are under way.
    #[error("too many writes at once")]
    Overloaded,
    /// A write may or may not have been done.
    #[error("the outcome of the write is unknown")]
    OutcomeUnknown {
        /// Whether the request can be repeated without doing it twice.
        retry_is_safe: bool,
        /// What happened.
        #[source]
        cause: Cause,
    },
    /// A bug.
    #[error("internal")]
    Internal(#[source] Cause),
}

/// What was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A conversation.
    Conversation(ConversationId),
    /// A session.
    Session(SessionId),
}

impl Error {
    /// A store's error about a conversation. A retry is taken to be safe; a
    /// write that is not idempotent says so with [`Self::of_write`].
    pub(super) fn of_store(error: StoreError, conversation: ConversationId) -> Self {
        Self::of_write(error, conversation, true)
    }

    /// A store's error about no conversation in particular.
    pub(super) fn of_list(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) | StoreError::OutcomeUnknown(cause) => {
                Self::Unavailable(cause)
            }
            other => Self::Internal(Box::new(other)),
        }
    }

    /// A store's error about a write to a conversation.
    pub(super) fn of_write(
        error: StoreError,
        conversation: ConversationId,
        retry_is_safe: bool,
    ) -> Self {
        match error {
            StoreError::NotFound => Self::NotFound(Resource::Conversation(conversation)),
            StoreError::Conflict { current_seq } => Self::SeqMismatch { current_seq },
            StoreError::BeyondEnd { last_seq } => Self::BeyondEnd { last_seq },
            StoreError::AlreadyExists(what) => Self::Reused(what),
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            StoreError::OutcomeUnknown(cause) => Self::OutcomeUnknown {
                retry_is_safe,
                cause,
            },
            StoreError::Internal(cause) => Self::Internal(cause),
        }
    }
}

impl From<SessionsUnavailable> for Error {
    fn from(error: SessionsUnavailable) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
