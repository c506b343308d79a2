//! Writes JSON and JSON Lines.

use serde::Serialize;

use super::schema::{HeaderObject, MessageObject, context_list};
use domain::{Conversation, Message};

pub(super) const END_OF_DOCUMENT: &[u8] = b"\n]}\n";

/// Begins a document: the header without its closing brace, and the beginning of the
/// list of messages.
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
    add(text, &MessageObject::new(message));
}

pub(super) fn add_line(text: &mut Vec<u8>, message: &Message) {
    add(text, &MessageObject::new(message));
    text.push(b'\n');
}

/// Formats a message's contexts as one JSON list.
pub(super) fn contexts(message: &Message) -> String {
    // Texts and finite numbers always serialize.
    serde_json::to_string(&context_list(&message.contexts)).unwrap_or_default()
}

fn header(conversation: &Conversation) -> Vec<u8> {
    let mut text = Vec::new();
    add(&mut text, &HeaderObject::new(conversation));
    text
}

fn add(text: &mut Vec<u8>, object: &impl Serialize) {
    // Texts and finite numbers always serialize, and a Vec accepts all bytes.
    let _ = serde_json::to_writer(text, object);
}
