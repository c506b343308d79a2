use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use super::{NAME, VERSION};
use crate::domain::{Context, Conversation, DeptId, Message, Metadata, Title};

pub(super) const END_OF_DOCUMENT: &[u8] = b"\n]}\n";

/// What a file says of its conversation. Not the session, which is of the moment,
/// nor the parent: a branch is exported with all that it shows.
#[derive(Serialize)]
struct Header<'a> {
    format: &'static str,
    version: u32,
    conversation: ConversationFields<'a>,
}

#[derive(Serialize)]
struct ConversationFields<'a> {
    id: String,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dept_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    last_seq: i64,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

#[derive(Serialize)]
struct MessageFields<'a> {
    seq: i64,
    id: String,
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_used: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<i32>,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<ContextFields<'a>>,
}

#[derive(Serialize)]
struct ContextFields<'a> {
    doc_id: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

impl<'a> ContextFields<'a> {
    fn of(context: &'a Context) -> Self {
        Self {
            doc_id: &context.doc_id,
            content: context.content.as_str(),
            score: context.score,
            metadata: context.metadata.as_ref(),
        }
    }
}

/// The header without its closing brace, and the beginning of the messages.
pub(super) fn begin_document(conversation: &Conversation) -> Vec<u8> {
    let mut text = header(conversation);
    text.pop();
    text.extend_from_slice(b",\"messages\":[");
    text
}

pub(super) fn header_line(conversation: &Conversation) -> Vec<u8> {
    let mut text = header(conversation);
    text.push(b'\n');
    text
}

pub(super) fn add_to_document(text: &mut Vec<u8>, message: &Message, is_first: bool) {
    text.extend_from_slice(if is_first { b"\n" } else { b",\n" });
    add(text, message);
}

pub(super) fn add_line(text: &mut Vec<u8>, message: &Message) {
    add(text, message);
    text.push(b'\n');
}

/// A message's contexts in one cell of a table.
pub(super) fn contexts(message: &Message) -> String {
    let contexts: Vec<_> = message.contexts.iter().map(ContextFields::of).collect();
    serde_json::to_string(&contexts).unwrap_or_default()
}

pub(super) fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn header(conversation: &Conversation) -> Vec<u8> {
    let header = Header {
        format: NAME,
        version: VERSION,
        conversation: ConversationFields {
            id: conversation.id.to_string(),
            user_id: conversation.user_id.as_str(),
            dept_id: conversation.dept_id.as_ref().map(DeptId::as_str),
            title: conversation.title.as_ref().map(Title::as_str),
            last_seq: conversation.last_seq,
            created_at: time(conversation.created_at),
            updated_at: time(conversation.updated_at),
            metadata: conversation.metadata.as_ref(),
        },
    };
    // Texts and numbers always make JSON.
    serde_json::to_vec(&header).unwrap_or_default()
}

fn add(text: &mut Vec<u8>, message: &Message) {
    let fields = MessageFields {
        seq: message.seq,
        id: message.id.to_string(),
        role: message.role.as_str(),
        content: message.content.as_str(),
        tokens_used: message.tokens_used,
        latency_ms: message.latency_ms,
        created_at: time(message.created_at),
        metadata: message.metadata.as_ref(),
        contexts: message.contexts.iter().map(ContextFields::of).collect(),
    };
    // Texts and finite numbers always make JSON, and a Vec always takes it.
    let _ = serde_json::to_writer(text, &fields);
}
