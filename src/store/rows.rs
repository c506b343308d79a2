//! Rows of both databases, and their conversion to the types of the domain.

pub(super) mod read_limits;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    ConversationPage, MinState, metadata_json,
    operation_error::{BackendError, ErrorKind},
};
use crate::domain::{
    AuthorName, Content, Conversation, ConversationId, DeptId, Message, MessageId, Metadata, Part,
    RetrievedContext, Role, Title, UserId,
};

type Object = Json<Map<String, Value>>;

/// Row of a conversation. The databases store ids and times as different types.
#[derive(FromRow)]
pub(super) struct ConversationRow<Id, Time> {
    id: Id,
    user_id: String,
    dept_id: Option<String>,
    title: Option<String>,
    last_seq: i64,
    created_at: Time,
    updated_at: Time,
    metadata: Option<Object>,
    parent_id: Option<Id>,
    branched_at_seq: Option<i64>,
    compacted_upto_seq: i64,
    uncompacted_tokens: i64,
}

/// Row of a message, without the id of its conversation, which the caller supplies.
#[derive(FromRow)]
pub(super) struct MessageRow<Id, Time> {
    id: Id,
    seq: i64,
    role: String,
    content: String,
    tokens_used: Option<i32>,
    latency_ms: Option<i32>,
    created_at: Time,
    metadata: Option<Object>,
    name: Option<String>,
    parts: Option<Json<Vec<Part>>>,
    token_count: Option<i32>,
    pinned: bool,
    redacted: bool,
}

/// Row of a context, in the order of its message's contexts.
#[derive(FromRow)]
pub(super) struct ContextRow {
    seq: i64,
    doc_id: String,
    content: String,
    score: Option<f64>,
    metadata: Option<Object>,
}

/// Entry of an idempotency key in the requests ledger.
#[derive(FromRow)]
pub(super) struct RequestRow {
    pub(super) digest: Vec<u8>,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) removed: Option<i64>,
}

impl<Id: Into<Uuid>, Time: Into<DateTime<Utc>>> ConversationRow<Id, Time> {
    pub(super) fn decode(self) -> Result<Conversation, BackendError> {
        Ok(Conversation {
            id: ConversationId::from_uuid(self.id.into()),
            user_id: UserId::parse(self.user_id).map_err(|_| invalid_value("user_id"))?,
            dept_id: self
                .dept_id
                .map(DeptId::parse)
                .transpose()
                .map_err(|_| invalid_value("dept_id"))?,
            title: decode_title(self.title)?,
            last_seq: self.last_seq,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            metadata: decode_metadata(self.metadata)?,
            parent_id: self
                .parent_id
                .map(|id| ConversationId::from_uuid(id.into())),
            branched_at_seq: self.branched_at_seq,
            compacted_upto_seq: self.compacted_upto_seq,
            uncompacted_tokens: self.uncompacted_tokens,
        })
    }
}

impl<Id: Into<Uuid>, Time: Into<DateTime<Utc>>> MessageRow<Id, Time> {
    pub(super) fn decode(self, conversation_id: ConversationId) -> Result<Message, BackendError> {
        Ok(Message {
            id: MessageId::from_uuid(self.id.into()),
            conversation_id,
            seq: self.seq,
            role: Role::parse(&self.role).map_err(|_| invalid_value("role"))?,
            name: self
                .name
                .map(AuthorName::parse)
                .transpose()
                .map_err(|_| invalid_value("name"))?,
            content: Content::from_stored(self.content),
            parts: self.parts.map(|Json(parts)| parts).unwrap_or_default(),
            token_count: self.token_count,
            pinned: self.pinned,
            redacted: self.redacted,
            tokens_used: self.tokens_used,
            latency_ms: self.latency_ms,
            created_at: self.created_at.into(),
            metadata: decode_metadata(self.metadata)?,
            contexts: Vec::new(),
        })
    }
}

/// Returns the limit of the rows to read for a page: one more than the page contains, to
/// determine whether there is a next page.
pub(super) fn limit_with_next(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// Page of conversations that is read in batches, until it has enough conversations or bytes.
pub(super) struct PageReader {
    page: Vec<Conversation>,
    /// Activity of the last conversation of the page, or the bound at which the page begins.
    last: i64,
    limit: usize,
    bytes: usize,
    /// Number of rows of the current batch that are still expected.
    expected: i64,
    is_full: bool,
}

impl PageReader {
    /// Upper bound on the rows of the first batch, when their size is not known yet: a page of the
    /// default size, and one more.
    const FIRST_BATCH: usize = 21;
    /// Upper bound on the rows of a batch: the server sends no more that are not part of the page.
    const MAX_BATCH: usize = 64;

    /// Begins a page of at most `limit` conversations after a position.
    pub(super) fn new(after: Option<i64>, limit: u32) -> Self {
        Self {
            page: Vec::new(),
            last: after.unwrap_or(i64::MAX),
            limit: limit as usize,
            bytes: 0,
            expected: 0,
            is_full: false,
        }
    }

    /// Returns the position and the number of rows of the next batch. `None` at the end of the page
    /// or of the conversations.
    pub(super) fn next_batch(&mut self) -> Option<(i64, i64)> {
        if self.is_full || self.expected > 0 {
            return None;
        }
        // One more than the page contains shows whether another page follows.
        let missing = self.limit.saturating_sub(self.page.len()) + 1;
        let fitting = match self.bytes.checked_div(self.page.len()) {
            None => Self::FIRST_BATCH,
            Some(average) => {
                let left = Message::MAX_BYTES_PER_RESPONSE.saturating_sub(self.bytes);
                (left / average.max(1) + 1).min(Self::MAX_BATCH)
            }
        };
        self.expected = i64::try_from(missing.min(fitting)).unwrap_or(i64::MAX);
        Some((self.last, self.expected))
    }

    /// Adds a row of the batch, or ignores it if the page is full. The first conversation always
    /// fits.
    pub(super) fn add(&mut self, (conversation, activity): (Conversation, i64)) {
        self.expected -= 1;
        if self.is_full {
            return;
        }
        self.bytes += conversation.footprint();
        let fits = self.page.len() < self.limit
            && (self.page.is_empty() || self.bytes <= Message::MAX_BYTES_PER_RESPONSE);
        if fits {
            self.page.push(conversation);
            self.last = activity;
        } else {
            self.is_full = true;
        }
    }

    /// Whether the remaining rows of the batch are ignored.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns the page, with the keyset of the next one if it is full.
    pub(super) fn finish(self) -> ConversationPage {
        ConversationPage {
            next: self.is_full.then_some(self.last),
            conversations: self.page,
            state: MinState::Latest,
        }
    }
}

/// Contexts of messages, by the number of the message.
#[derive(Default)]
pub(super) struct Contexts(HashMap<i64, Vec<RetrievedContext>>);

impl Contexts {
    /// Adds a row, and returns its context.
    pub(super) fn add(&mut self, row: ContextRow) -> Result<&RetrievedContext, BackendError> {
        let context = RetrievedContext {
            doc_id: row.doc_id,
            content: Content::from_stored(row.content),
            score: row.score,
            metadata: decode_metadata(row.metadata)?,
        };
        let contexts = self.0.entry(row.seq).or_default();
        contexts.push(context);
        Ok(&contexts[contexts.len() - 1])
    }

    /// Moves the contexts to their messages.
    pub(super) fn attach(mut self, messages: &mut [Message]) {
        for message in messages {
            message.contexts = self.0.remove(&message.seq).unwrap_or_default();
        }
    }
}

fn decode_metadata(stored: Option<Object>) -> Result<Option<Metadata>, BackendError> {
    let decoded = stored.map(|Json(object)| metadata_json::decode(object));
    decoded.transpose()
}

/// Decodes the title of a conversation.
pub(super) fn decode_title(stored: Option<String>) -> Result<Option<Title>, BackendError> {
    stored
        .map(Title::parse)
        .transpose()
        .map_err(|_| invalid_value("title"))
}

fn invalid_value(column: &str) -> BackendError {
    BackendError::new(
        ErrorKind::Internal,
        format!("the stored value of column {column} is not valid"),
    )
}
