use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Number, Value};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    ConversationPage,
    failure::{ErrorKind, Failure, OperationError},
};
use crate::domain::{
    Content, Context, Conversation, ConversationId, DeptId, Message, MessageId, Metadata, Role,
    Title, UserId,
};

type Object = Json<Map<String, Value>>;

/// A conversation's row. The stores keep ids and times in types of their own.
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
}

/// A message's row, without the conversation's id, which the reader knows.
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
}

/// A context's row, in the order of its message's contexts.
#[derive(FromRow)]
pub(super) struct ContextRow {
    seq: i64,
    doc_id: String,
    content: String,
    score: Option<f64>,
    metadata: Option<Object>,
}

/// What the ledger says of an idempotency key.
#[derive(FromRow)]
pub(super) struct RequestRow {
    pub(super) digest: Vec<u8>,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) removed: Option<i64>,
}

impl<Id: Into<Uuid>, Time: Into<DateTime<Utc>>> ConversationRow<Id, Time> {
    pub(super) fn read(self) -> Result<Conversation, Failure> {
        Ok(Conversation {
            id: ConversationId::from_uuid(self.id.into()),
            user_id: UserId::parse(self.user_id).map_err(|_| unreadable("user_id"))?,
            dept_id: self
                .dept_id
                .map(DeptId::parse)
                .transpose()
                .map_err(|_| unreadable("dept_id"))?,
            title: title(self.title)?,
            last_seq: self.last_seq,
            created_at: self.created_at.into(),
            updated_at: self.updated_at.into(),
            metadata: self.metadata.map(metadata).transpose()?,
            parent_id: self
                .parent_id
                .map(|id| ConversationId::from_uuid(id.into())),
            branched_at_seq: self.branched_at_seq,
        })
    }
}

impl<Id: Into<Uuid>, Time: Into<DateTime<Utc>>> MessageRow<Id, Time> {
    pub(super) fn read(self, conversation_id: ConversationId) -> Result<Message, Failure> {
        Ok(Message {
            id: MessageId::from_uuid(self.id.into()),
            conversation_id,
            seq: self.seq,
            role: Role::from_name(&self.role).ok_or_else(|| unreadable("role"))?,
            content: Content::from_stored(self.content),
            tokens_used: self.tokens_used,
            latency_ms: self.latency_ms,
            created_at: self.created_at.into(),
            metadata: self.metadata.map(metadata).transpose()?,
            contexts: Vec::new(),
        })
    }
}

/// Puts a page together from rows with their activity, of which one more than the
/// limit tells that there is a next page.
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

/// Gives each message its contexts.
pub(super) fn add_contexts(messages: &mut [Message], rows: Vec<ContextRow>) -> Result<(), Failure> {
    let mut of_message: HashMap<i64, Vec<Context>> = HashMap::new();
    for row in rows {
        of_message.entry(row.seq).or_default().push(Context {
            doc_id: row.doc_id,
            content: Content::from_stored(row.content),
            score: row.score,
            metadata: row.metadata.map(metadata).transpose()?,
        });
    }
    for message in messages {
        message.contexts = of_message.remove(&message.seq).unwrap_or_default();
    }
    Ok(())
}

/// A conversation's title.
pub(super) fn title(stored: Option<String>) -> Result<Option<Title>, Failure> {
    stored
        .map(Title::parse)
        .transpose()
        .map_err(|_| unreadable("title"))
}

fn metadata(Json(object): Object) -> Result<Metadata, Failure> {
    let mut root = Value::Object(object);
    restore_doubles(&mut root);
    serde_json::from_value(root).map_err(|_| unreadable("metadata"))
}

/// `jsonb` writes the double 1e16 as the integer 10000000000000000, which then
/// is not equal to what was saved. No caller can have sent an integer beyond
/// 2^53, since numbers are doubles: such a one is a double again.
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

fn unreadable(column: &str) -> Failure {
    Failure::new(
        ErrorKind::Internal,
        format!("the stored value of column {column} is not valid"),
    )
}
