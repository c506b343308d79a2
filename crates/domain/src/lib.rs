//! Validated types that all modules share: ids, messages, conversations, sessions.
//!
//! The module does no I/O. A value of one of these types is valid; the constructors
//! reject others with an [`InvalidValue`], or with a [`FieldError`] that names the
//! field. Request parsing and archive reading call the same constructors, so that
//! each rule exists once.

mod checkpoint;
mod clock;
mod content;
mod context;
mod conversation;
mod digest;
mod history;
mod id;
mod item;
mod item_filter;
mod message;
mod metadata;
mod metadata_filter;
mod part;
mod role;
mod search;
mod session;
mod text;
mod time;
mod validation;

pub use self::{
    checkpoint::{
        ChannelData, ChannelValue, ChannelWrite, Checkpoint, CheckpointData, CheckpointNamespace,
        ContentDigest, Contents, ListBase, MAX_CHANNELS, MAX_CHECKPOINT_MESSAGES, MAX_INLINE_BYTES,
        MAX_LIST_ITEMS, MAX_PIECE_BYTES, MAX_PIECES, MAX_STATE_BYTES, MAX_WRITES, Piece,
        checkpoint_message_id,
    },
    clock::{Clock, IdSource, SystemClock, UuidV7},
    content::Content,
    context::{RawContext, RetrievedContext},
    conversation::{Conversation, ConversationChanges, ConversationRef, NewConversation},
    digest::Digest,
    history::{
        HistoryBudget, HistoryItem, HistorySelection, OlderMessages, SelectedMessages,
        select_history,
    },
    id::{CheckpointId, ConversationId, MessageId, SessionId},
    item::{Embedding, ItemId, ItemOwner, ItemTtl, ItemValue, Namespace, NamespaceCondition},
    item_filter::ItemFilter,
    message::{Message, NewMessage, NumberedMessage, RawMessage},
    metadata::Metadata,
    metadata_filter::MetadataFilter,
    part::{Blob, Part, RawPart},
    role::Role,
    search::SearchText,
    session::{NewSession, Session, SessionRef},
    text::{AuthorName, DeptId, ItemKey, RequestId, Title, UserId},
    time::{from_rfc3339, from_unix_time, to_micros},
    validation::{FieldError, InField, InvalidValue, SizeLimit, non_negative},
};

/// Limits on the size of what a caller may save.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Upper bound on the text of a message or a context, in bytes.
    pub content_bytes: usize,
    /// Upper bound on a metadata object, in bytes of compact JSON.
    pub metadata_bytes: usize,
    /// Upper bound on the data of a binary part, in bytes.
    pub blob_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            content_bytes: 1 << 20,
            metadata_bytes: 64 << 10,
            blob_bytes: 8 << 20,
        }
    }
}
