//! `conversations.json` of claude.ai: a list of conversations, whose messages name their parents in
//! newer exports.

use domain::{RawPart, Role};
use serde_json::Value;

use crate::{
    parse,
    source::{Draft, Node, Source},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let messages = value.get("chat_messages").and_then(Value::as_array);
    let messages = messages.ok_or("has no chat_messages")?;
    let mut source = Source {
        id: parse::id(value, "uuid"),
        title: parse::text(value, "name").map(str::to_owned),
        created_at: parse::time(value, &["created_at"]),
        updated_at: parse::time(value, &["updated_at"]),
        current: parse::id(value, "current_leaf_message_uuid"),
        ..Source::default()
    };
    source.note("model", parse::text(value, "model"));
    let is_tree = messages
        .iter()
        .any(|it| parse::id(it, "parent_message_uuid").is_some());
    for message in messages.iter().filter(|message| message.is_object()) {
        let drafts = drafts(message);
        match parse::id(message, "uuid") {
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

/// The messages of one message of the product: an answer contains tool calls and their results.
fn drafts(message: &Value) -> Vec<Draft> {
    let role = match parse::text(message, "sender").or_else(|| parse::text(message, "role")) {
        Some("human" | "user") => Role::User,
        Some("system") => Role::System,
        _ => Role::Assistant,
    };
    let created_at = parse::time(message, &["created_at", "updated_at"]);
    let mut drafts = Vec::new();
    let mut draft = Draft::new(role);
    for attachment in parse::list(message, "attachments") {
        add_attachment(&mut draft, attachment);
    }
    for file in parse::list(message, "files")
        .iter()
        .chain(parse::list(message, "files_v2"))
    {
        add_file(&mut draft, file);
    }
    let attached = draft.parts.len();
    for part in parse::list(message, "content") {
        match parse::text(part, "type").unwrap_or_default() {
            "text" => draft.text(parse::text(part, "text").unwrap_or_default()),
            "thinking" => draft.reasoning(parse::text(part, "thinking").unwrap_or_default()),
            "tool_use" if role == Role::Assistant => {
                let input = part
                    .get("input")
                    .map(parse::text_or_json)
                    .unwrap_or_default();
                let id = parse::id(part, "id");
                draft.call(id.as_deref(), parse::text(part, "name"), input);
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
            _ if part.is_null() => {}
            kind => draft.generic(if kind.is_empty() { "claude" } else { kind }, part),
        }
    }
    if draft.parts.len() == attached && drafts.is_empty() {
        draft.text(parse::text(message, "text").unwrap_or_default());
    }
    drafts.push(draft);
    drafts.retain(|draft| !draft.parts.is_empty());
    for draft in &mut drafts {
        draft.created_at = created_at;
    }
    drafts
}

/// The text of a result, which is a text or a list of parts.
fn text_of(content: &Value) -> String {
    let Some(parts) = content.as_array() else {
        return parse::text_or_json(content);
    };
    let text = |part: &Value| match parse::text(part, "text") {
        Some(text) => text.to_owned(),
        None => parse::text_or_json(part),
    };
    parts.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn add_attachment(draft: &mut Draft, attachment: &Value) {
    let name = parse::text(attachment, "file_name").unwrap_or("without a name");
    let text = parse::text(attachment, "extracted_content").unwrap_or_default();
    draft.text(format!("[attachment: {name}]\n{text}").trim_end());
}

fn add_file(draft: &mut Draft, file: &Value) {
    let id = parse::id(file, "file_uuid").or_else(|| parse::id(file, "uuid"));
    let name = parse::text(file, "file_name");
    let is_present = |part: &RawPart| matches!(part, RawPart::File { file_id, .. } if Some(file_id) == id.as_ref());
    if draft.parts.iter().any(is_present) {
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
