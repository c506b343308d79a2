//! `conversations.json` of claude.ai: a list of conversations, whose messages name their parents in
//! newer exports.

use std::collections::HashSet;

use domain::Role;
use serde_json::Value;

use super::unknown_author;
use crate::{
    parse,
    source::{Draft, Node, Source},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let messages = value.get("chat_messages").and_then(Value::as_array);
    let messages = messages.ok_or("has no chat_messages")?;
    let mut source = Source {
        id: id(value),
        title: parse::text(value, "name").map(str::to_owned),
        created_at: parse::time(value, &["created_at"])?,
        updated_at: parse::time(value, &["updated_at"])?,
        current: parse::id(value, "current_leaf_message_uuid"),
        ..Source::default()
    };
    source.note("model", parse::text(value, "model"));
    let is_tree = messages
        .iter()
        .any(|it| parse::id(it, "parent_message_uuid").is_some());
    for message in super::messages(messages) {
        let (index, message) = message?;
        let id = parse::id(message, "uuid");
        let drafts =
            drafts(message).map_err(|reason| parse::in_message(id.as_deref(), index, &reason))?;
        match id {
            Some(id) if is_tree => source.nodes.push(Node {
                id,
                parent: parse::id(message, "parent_message_uuid"),
                messages: drafts,
            }),
            Some(id) => {
                let parent = source.nodes.last().map(|node| node.id.clone());
                source.nodes.push(Node {
                    id,
                    parent,
                    messages: drafts,
                });
            }
            None => source.push(drafts),
        }
    }
    Ok(source)
}

pub(super) fn id(value: &Value) -> Option<String> {
    parse::id(value, "uuid")
}

/// The messages of one message of the product: an answer contains tool calls and their results.
fn drafts(message: &Value) -> Result<Vec<Draft>, String> {
    let author = ["sender", "role"].iter().find_map(|key| message.get(key));
    let role = match author.and_then(Value::as_str) {
        Some("human" | "user") => Some(Role::User),
        Some("assistant") => Some(Role::Assistant),
        Some("system") => Some(Role::System),
        _ => None,
    };
    let drafts = drafts_of(message, role.unwrap_or(Role::Assistant));
    if role.is_none() && !drafts.is_empty() {
        return Err(unknown_author(author));
    }
    let created_at = parse::time(message, &["created_at", "updated_at"])?;
    let set_time = |draft| Draft {
        created_at,
        ..draft
    };
    Ok(drafts.into_iter().map(set_time).collect())
}

fn drafts_of(message: &Value, role: Role) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut draft = Draft::new(role);
    for attachment in parse::contents(message, "attachments") {
        add_attachment(&mut draft, attachment);
    }
    let mut present = HashSet::new();
    for file in parse::contents(message, "files")
        .iter()
        .chain(parse::contents(message, "files_v2"))
    {
        add_file(&mut draft, file, &mut present);
    }
    let attached = draft.parts.len();
    for part in parse::contents(message, "content") {
        if !part.is_object() {
            draft.text(&parse::text_or_json(part));
            continue;
        }
        match parse::text(part, "type").unwrap_or_default() {
            "text" => draft.text(&parse::content(part, "text")),
            "thinking" => draft.reasoning(&parse::content(part, "thinking")),
            "tool_use" if role == Role::Assistant => {
                let input = part
                    .get("input")
                    .map(parse::text_or_json)
                    .unwrap_or_default();
                let id = parse::id(part, "id");
                let name = parse::text(part, "name");
                draft.call(id.as_deref(), name, input.into_owned());
            }
            "tool_result" => {
                if !draft.parts.is_empty() {
                    drafts.push(std::mem::replace(&mut draft, Draft::new(role)));
                }
                let id = parse::id(part, "tool_use_id");
                let result = text_of(part.get("content").unwrap_or(&Value::Null));
                drafts.push(Draft::result(
                    id.as_deref(),
                    parse::text(part, "name"),
                    result,
                ));
            }
            // Accounting of the product.
            "token_budget" | "flag" => {}
            kind => draft.generic(if kind.is_empty() { "claude" } else { kind }, part),
        }
    }
    if draft.parts.len() == attached && drafts.is_empty() {
        draft.text(&parse::content(message, "text"));
    }
    drafts.push(draft);
    drafts.retain(|draft| !draft.parts.is_empty());
    drafts
}

/// The text of a result, which is a text or a list of parts.
fn text_of(content: &Value) -> String {
    let Some(parts) = content.as_array() else {
        return parse::text_or_json(content).into_owned();
    };
    let text = |part: &Value| match part.get("text") {
        Some(Value::String(text)) => text.clone(),
        _ => parse::text_or_json(part).into_owned(),
    };
    parts.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn add_attachment(draft: &mut Draft, attachment: &Value) {
    if !attachment.is_object() {
        draft.text(&parse::text_or_json(attachment));
        return;
    }
    let name = parse::text(attachment, "file_name").unwrap_or("without a name");
    let text = parse::content(attachment, "extracted_content");
    draft.text(format!("[attachment: {name}]\n{text}").trim_end());
}

/// Adds a file, unless it is `present`.
fn add_file(draft: &mut Draft, file: &Value, present: &mut HashSet<String>) {
    if !file.is_object() {
        draft.text(&parse::text_or_json(file));
        return;
    }
    let id = parse::id(file, "file_uuid").or_else(|| parse::id(file, "uuid"));
    let name = parse::text(file, "file_name");
    if id.as_ref().is_some_and(|id| !present.insert(id.clone())) {
        return;
    }
    if let Some(name) = name {
        draft.text(&format!("[file: {name}]"));
    }
    if let Some(id) = &id {
        let modality = match parse::text(file, "file_kind") {
            Some("image") => "image",
            _ => "",
        };
        draft.file(id, None, modality);
    }
}
