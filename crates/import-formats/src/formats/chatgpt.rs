//! `conversations.json` of ChatGPT: a list of conversations, each a tree of messages (`mapping`).

use std::collections::HashSet;

use domain::{RawPart, Role};
use serde_json::Value;

use super::unknown_author;
use crate::{
    parse,
    source::{Draft, Node, Source, fitting},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let mapping = value.get("mapping").and_then(Value::as_object);
    let mapping = mapping.ok_or("has no mapping, the tree of its messages")?;
    let mut source = Source {
        id: id(value),
        title: parse::text(value, "title").map(str::to_owned),
        created_at: parse::time(value, &["create_time"])?,
        updated_at: parse::time(value, &["update_time"])?,
        current: parse::id(value, "current_node"),
        ..Source::default()
    };
    source.note("model", parse::text(value, "default_model_slug"));
    for (id, node) in mapping {
        // A deleted node is null; its children begin paths of their own.
        if node.is_null() {
            continue;
        }
        let in_message = |reason: String| parse::in_message(Some(id), 0, &reason);
        if !node.is_object() {
            return Err(in_message("is no object".to_owned()));
        }
        let message = match node.get("message") {
            None | Some(Value::Null) => None,
            Some(message) => self::message(message).map_err(in_message)?,
        };
        source.nodes.push(Node {
            id: id.clone(),
            parent: parse::id(node, "parent"),
            messages: message.into_iter().collect(),
        });
    }
    // The order of members in JSON has no meaning.
    source.nodes.sort_by_key(|node| {
        let first = node.messages.first();
        first.and_then(|draft| draft.created_at)
    });
    Ok(source)
}

pub(super) fn id(value: &Value) -> Option<String> {
    parse::id(value, "conversation_id").or_else(|| parse::id(value, "id"))
}

/// The message of a node; `None` if it is empty.
fn message(message: &Value) -> Result<Option<Draft>, String> {
    if !message.is_object() {
        return Err("message is no object".to_owned());
    }
    let author = message.get("author").unwrap_or(&Value::Null);
    let name = parse::text(author, "name");
    let content = message.get("content").unwrap_or(&Value::Null);
    let kind = parse::text(content, "content_type").unwrap_or("text");
    let role = match parse::text(author, "role") {
        // Custom instructions are stored as a hidden message of the user.
        _ if matches!(kind, "user_editable_context" | "model_editable_context") => {
            Some(Role::System)
        }
        Some("user") => Some(Role::User),
        Some("assistant") => Some(Role::Assistant),
        Some("system" | "developer") => Some(Role::System),
        Some("tool" | "function") => Some(Role::Tool),
        _ => None,
    };
    let mut draft = Draft::new(role.unwrap_or(Role::Assistant));
    match content {
        Value::Object(_) => add_content(&mut draft, kind, content),
        Value::Array(parts) => parts.iter().for_each(|part| add_part(&mut draft, part)),
        part => add_part(&mut draft, part),
    }
    add_attachments(&mut draft, message);
    if draft.parts.is_empty() {
        return Ok(None);
    }
    let role = role.ok_or_else(|| unknown_author(author.get("role")))?;
    let recipient = parse::text(message, "recipient").filter(|recipient| *recipient != "all");
    if role == Role::Assistant
        && let Some(tool) = recipient
    {
        draft = into_call(draft, message, tool);
    } else if role == Role::Tool {
        draft = into_result(draft, name);
    }
    draft.name = draft.name.or(name.map(fitting));
    draft.created_at = parse::time(message, &["create_time", "update_time"])?;
    let details = message.get("metadata").unwrap_or(&Value::Null);
    if let Some(model) = parse::text(details, "model_slug") {
        draft.metadata.insert("model".to_owned(), model.into());
    }
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn add_content(draft: &mut Draft, kind: &str, content: &Value) {
    match kind {
        "user_editable_context" => {
            for key in ["user_profile", "user_instructions"] {
                draft.text(&parse::content(content, key));
            }
        }
        "model_editable_context" => draft.text(&parse::content(content, "model_set_context")),
        "thoughts" => {
            for thought in parse::contents(content, "thoughts") {
                if !thought.is_object() {
                    draft.reasoning(&parse::text_or_json(thought));
                    continue;
                }
                let texts = ["summary", "content"].map(|key| parse::content(thought, key));
                let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
                draft.reasoning(&texts.join("\n"));
            }
        }
        "reasoning_recap" => draft.reasoning(&parse::content(content, "content")),
        "tether_browsing_display" => {
            let texts = ["result", "summary"].map(|key| parse::content(content, key));
            let text = texts.iter().find(|text| !text.is_empty());
            draft.text(text.map_or("", |text| text));
        }
        "tether_quote" => {
            for key in ["title", "url", "text"] {
                draft.text(&parse::content(content, key));
            }
        }
        _ => {
            let before = draft.parts.len();
            for part in parse::contents(content, "parts") {
                add_part(draft, part);
            }
            for key in ["text", "result", "content"] {
                if draft.parts.len() == before {
                    draft.text(&parse::content(content, key));
                }
            }
            if draft.parts.len() == before && !is_empty(kind, content) {
                draft.generic(kind, content);
            }
        }
    }
}

/// Whether content without parts and text has nothing else, either.
fn is_empty(kind: &str, content: &Value) -> bool {
    const PROPERTIES: [&str; 4] = ["content_type", "language", "response_format_name", "parts"];
    let is_known = matches!(
        kind,
        "text" | "multimodal_text" | "code" | "execution_output"
    );
    let is_blank = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    let mut members = content.as_object().into_iter().flatten();
    is_known && members.all(|(key, value)| PROPERTIES.contains(&key.as_str()) || is_blank(value))
}

fn add_part(draft: &mut Draft, part: &Value) {
    if !part.is_object() {
        draft.text(&parse::text_or_json(part));
        return;
    }
    let kind = parse::text(part, "content_type").unwrap_or_default();
    let file = parse::text(part, "asset_pointer").map(file_id);
    match (kind, file) {
        ("audio_transcription", _) => draft.text(&parse::content(part, "text")),
        ("real_time_user_audio_video_asset_pointer", _) => {
            let audio = part.get("audio_asset_pointer").unwrap_or(&Value::Null);
            match parse::text(audio, "asset_pointer") {
                Some(file) => draft.file(file_id(file), None, "audio"),
                None => draft.generic(kind, part),
            }
        }
        (kind, Some(file)) if kind.contains("audio") => draft.file(file, None, "audio"),
        (kind, Some(file)) if kind.contains("video") => draft.file(file, None, "video"),
        (_, Some(file)) => draft.file(file, None, "image"),
        ("", None) if part.get("text").is_some() => draft.text(&parse::content(part, "text")),
        ("", None) => draft.generic("chatgpt", part),
        (kind, None) => draft.generic(kind, part),
    }
}

/// `file-service://file-1` and `sediment://file_1` name the file `file-1`.
fn file_id(pointer: &str) -> &str {
    pointer.split_once("://").map_or(pointer, |(_, id)| id)
}

fn add_attachments(draft: &mut Draft, message: &Value) {
    let details = message.get("metadata").unwrap_or(&Value::Null);
    let mut present: HashSet<String> = draft.file_ids().map(str::to_owned).collect();
    for attachment in parse::contents(details, "attachments") {
        let id = parse::id(attachment, "id");
        if id.as_ref().is_some_and(|id| !present.insert(id.clone())) {
            continue;
        }
        if let Some(name) = parse::text(attachment, "name") {
            draft.text(&format!("[attachment: {name}]"));
        }
        let mime_type =
            parse::text(attachment, "mimeType").or_else(|| parse::text(attachment, "mime_type"));
        if let Some(id) = id {
            draft.file(&id, mime_type, "");
        }
    }
}

/// A message of the model to a tool: a call with the text as its arguments.
fn into_call(draft: Draft, message: &Value, tool: &str) -> Draft {
    let mut call = Draft::new(Role::Assistant);
    let mut arguments = Vec::new();
    for part in draft.parts {
        match part {
            RawPart::Text { content } => arguments.push(content),
            other => call.parts.push(other),
        }
    }
    let id = parse::id(message, "id");
    call.call(id.as_deref(), Some(tool), arguments.join("\n"));
    call
}

/// A message of a tool: the result of the call before it. What is no text follows as parts.
fn into_result(draft: Draft, tool: Option<&str>) -> Draft {
    let mut texts = Vec::new();
    let mut others = Vec::new();
    for part in draft.parts {
        match part {
            RawPart::Text { content } => texts.push(content),
            other => others.push(other),
        }
    }
    let mut result = Draft::result(None, tool, texts.join("\n"));
    if texts.is_empty() && others.is_empty() {
        result.parts.clear();
    }
    result.parts.extend(others);
    result
}
