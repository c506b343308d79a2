//! The parsed types that every room speaks: ids, messages, conversations,
//! sessions. No I/O. A value that exists is valid; the parsers say why another
//! is not.

mod clock;
mod conversation;
mod digest;
mod id;
mod message;
mod metadata;
mod search;
mod session;
mod text;

use std::borrow::Cow;

pub use self::{
    clock::{Clock, IdSource, SystemClock, UuidV7, to_micros},
    conversation::{Conversation, ConversationChanges, ConversationRef, NewConversation},
    digest::Digest,
    id::{ConversationId, MessageId, SessionId},
    message::{Content, Context, Message, NewMessage, Numbered, Role},
    metadata::Metadata,
    search::TextSearch,
    session::{NewSession, Session, SessionRef},
    text::{DeptId, RequestId, SearchText, Title, UserId},
};

/// Why a value was refused, as a phrase that follows the field's name. It
/// never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(Cow<'static, str>);

impl InvalidValue {
    /// A reason, such as "must not be negative".
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(reason.into())
    }
}

/// How large what a caller sends may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest text of a message or a context, in bytes.
    pub content_bytes: usize,
    /// The largest metadata, in bytes of compact JSON.
    pub metadata_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            content_bytes: 1 << 20,
            metadata_bytes: 64 << 10,
        }
    }
}
