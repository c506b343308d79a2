//! Rows of both databases, and their conversion to the types of the domain.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Number, Value};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    ConversationPage,
    operation_error::{BackendError, ErrorKind, OperationError},
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
            metadata: self.metadata.map(decode_metadata).transpose()?,
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
            metadata: self.metadata.map(decode_metadata).transpose()?,
            contexts: Vec::new(),
        })
    }
}

/// Returns the limit of the rows to read for a page: one more than the page contains, to
/// determine whether there is a next page.
pub(super) fn limit_with_next(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// Builds a page from rows with their activity, which were read up to
/// [`limit_with_next`].
pub(super) fn page(
    rows: impl Iterator<Item = Result<(Conversation, i64), OperationError>>,
    limit: u32,
) -> Result<ConversationPage, OperationError> {
    let mut page = ConversationPage {
        conversations: Vec::new(),
        next: None,
    };
    let mut last = None;
    for row in rows {
        if page.conversations.len() == limit as usize {
            page.next = last;
            break;
        }
        let (conversation, activity) = row?;
        page.conversations.push(conversation);
        last = Some(activity);
    }
    Ok(page)
}

/// Adds the contexts to their messages.
pub(super) fn add_contexts(
    messages: &mut [Message],
    rows: Vec<ContextRow>,
) -> Result<(), BackendError> {
    let mut of_message: HashMap<i64, Vec<RetrievedContext>> = HashMap::new();
    for row in rows {
        of_message
            .entry(row.seq)
            .or_default()
            .push(RetrievedContext {
                doc_id: row.doc_id,
                content: Content::from_stored(row.content),
                score: row.score,
                metadata: row.metadata.map(decode_metadata).transpose()?,
            });
    }
    for message in messages {
        message.contexts = of_message.remove(&message.seq).unwrap_or_default();
    }
    Ok(())
}

/// Decodes the title of a conversation.
pub(super) fn decode_title(stored: Option<String>) -> Result<Option<Title>, BackendError> {
    stored
        .map(Title::parse)
        .transpose()
        .map_err(|_| invalid_value("title"))
}

fn decode_metadata(Json(object): Object) -> Result<Metadata, BackendError> {
    let mut root = Value::Object(object);
    restore_doubles(&mut root);
    serde_json::from_value(root).map_err(|_| invalid_value("metadata"))
}

/// Converts integers beyond 2^53 back to doubles. `jsonb` writes the double 1e16 as the integer
/// 10000000000000000, which is not equal to the saved value. No caller can have sent such an
/// integer, since numbers are doubles.
fn restore_doubles(value: &mut Value) {
    const LARGEST_EXACT: u64 = 1 << 53;
    match value {
        Value::Number(number) => {
            let large = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            if large.is_some_and(|size| size > LARGEST_EXACT)
                && let Some(double) = number.as_f64().and_then(Number::from_f64)
            {
                *number = double;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(restore_doubles),
        Value::Object(fields) => fields.values_mut().for_each(restore_doubles),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn invalid_value(column: &str) -> BackendError {
    BackendError::new(
        ErrorKind::Internal,
        format!("the stored value of column {column} is not valid"),
    )
}
