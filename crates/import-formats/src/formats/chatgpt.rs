//! `conversations.json` of ChatGPT: a list of conversations, each a tree of messages (`mapping`).

use domain::{RawPart, Role};
use serde_json::Value;

use crate::{
    parse,
    source::{Draft, Node, Source, fitting},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let mapping = value.get("mapping").and_then(Value::as_object);
    let mapping = mapping.ok_or("has no mapping, the tree of its messages")?;
    let mut source = Source {
        id: parse::id(value, "conversation_id").or_else(|| parse::id(value, "id")),
        title: parse::text(value, "title").map(str::to_owned),
        created_at: parse::time(value, &["create_time"]),
        updated_at: parse::time(value, &["update_time"]),
        current: parse::id(value, "current_node"),
        ..Source::default()
    };
    source.note("model", parse::text(value, "default_model_slug"));
    for (id, node) in mapping {
        // A deleted node is null; its children begin paths of their own.
        if node.is_null() {
            continue;
        }
        let message = node.get("message").filter(|message| message.is_object());
        source.nodes.push(Node {
            id: id.clone(),
            parent: parse::id(node, "parent"),
            messages: message.and_then(self::message).into_iter().collect(),
        });
    }
    // The order of members in JSON has no meaning.
    source.nodes.sort_by_key(|node| {
        let first = node.messages.first();
        first.and_then(|draft| draft.created_at)
    });
    Ok(source)
}

/// The message of a node; `None` if it is empty.
fn message(message: &Value) -> Option<Draft> {
    let author = message.get("author").unwrap_or(&Value::Null);
    let name = parse::text(author, "name");
    let content = message.get("content").unwrap_or(&Value::Null);
    let kind = parse::text(content, "content_type").unwrap_or("text");
    let role = match parse::text(author, "role") {
        // Custom instructions are stored as a hidden message of the user.
        _ if matches!(kind, "user_editable_context" | "model_editable_context") => Role::System,
        Some("user") => Role::User,
        Some("system" | "developer") => Role::System,
        Some("tool" | "function") => Role::Tool,
        _ => Role::Assistant,
    };
    let mut draft = Draft::new(role);
    add_content(&mut draft, kind, content);
    add_attachments(&mut draft, message);
    let recipient = parse::text(message, "recipient").filter(|recipient| *recipient != "all");
    if role == Role::Assistant
        && let Some(tool) = recipient
    {
        draft = into_call(draft, message, tool);
    } else if role == Role::Tool {
        draft = into_result(draft, name);
    }
    draft.name = draft.name.or(name.map(fitting));
    draft.created_at = parse::time(message, &["create_time", "update_time"]);
    let details = message.get("metadata").unwrap_or(&Value::Null);
    if let Some(model) = parse::text(details, "model_slug") {
        draft.metadata.insert("model".to_owned(), model.into());
    }
    (!draft.parts.is_empty()).then_some(draft)
}

fn add_content(draft: &mut Draft, kind: &str, content: &Value) {
    match kind {
        "user_editable_context" => {
            for key in ["user_profile", "user_instructions"] {
                draft.text(parse::text(content, key).unwrap_or_default());
            }
        }
        "model_editable_context" => {
            draft.text(parse::text(content, "model_set_context").unwrap_or_default());
        }
        "thoughts" => {
            for thought in parse::list(content, "thoughts") {
                let texts = [
                    parse::text(thought, "summary"),
                    parse::text(thought, "content"),
                ];
                let texts: Vec<_> = texts.into_iter().flatten().collect();
                draft.reasoning(&texts.join("\n"));
            }
        }
        "reasoning_recap" => draft.reasoning(parse::text(content, "content").unwrap_or_default()),
        "tether_browsing_display" => {
            let text = parse::text(content, "result").or_else(|| parse::text(content, "summary"));
            draft.text(text.unwrap_or_default());
        }
        "tether_quote" => {
            for key in ["title", "url", "text"] {
                draft.text(parse::text(content, key).unwrap_or_default());
            }
        }
        _ => {
            let before = draft.parts.len();
            for part in parse::list(content, "parts") {
                add_part(draft, part);
            }
            for key in ["text", "result", "content"] {
                if draft.parts.len() == before {
                    draft.text(parse::text(content, key).unwrap_or_default());
                }
            }
            let is_known = matches!(
                kind,
                "text" | "multimodal_text" | "code" | "execution_output"
            );
            if draft.parts.len() == before && !is_known {
                draft.generic(kind, content);
            }
        }
    }
}

fn add_part(draft: &mut Draft, part: &Value) {
    if let Value::String(text) = part {
        draft.text(text);
        return;
    }
    let kind = parse::text(part, "content_type").unwrap_or_default();
    let file = parse::text(part, "asset_pointer").map(file_id);
    match (kind, file) {
        ("audio_transcription", _) => draft.text(parse::text(part, "text").unwrap_or_default()),
        ("real_time_user_audio_video_asset_pointer", _) => {
            let audio = part.get("audio_asset_pointer").unwrap_or(&Value::Null);
            if let Some(file) = parse::text(audio, "asset_pointer") {
                draft.file(file_id(file), None, "audio");
            }
        }
        (kind, Some(file)) if kind.contains("audio") => draft.file(file, None, "audio"),
        (kind, Some(file)) if kind.contains("video") => draft.file(file, None, "video"),
        (_, Some(file)) => draft.file(file, None, "image"),
        _ if part.is_null() => {}
        ("", None) => draft.text(parse::text(part, "text").unwrap_or_default()),
        (kind, None) => draft.generic(kind, part),
    }
}

/// `file-service://file-1` and `sediment://file_1` name the file `file-1`.
fn file_id(pointer: &str) -> &str {
    pointer.split_once("://").map_or(pointer, |(_, id)| id)
}

fn add_attachments(draft: &mut Draft, message: &Value) {
    let details = message.get("metadata").unwrap_or(&Value::Null);
    for attachment in parse::list(details, "attachments") {
        let Some(id) = parse::id(attachment, "id") else {
            continue;
        };
        let is_present =
            |part: &RawPart| matches!(part, RawPart::File { file_id, .. } if *file_id == id);
        if draft.parts.iter().any(is_present) {
            continue;
        }
        if let Some(name) = parse::text(attachment, "name") {
            draft.text(&format!("[attachment: {name}]"));
        }
        let mime_type =
            parse::text(attachment, "mimeType").or_else(|| parse::text(attachment, "mime_type"));
        draft.file(&id, mime_type, "");
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
