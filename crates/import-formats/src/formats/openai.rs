//! Message arrays of OpenAI's Chat Completions, and JSON Lines for fine-tuning with one in each line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::Role;
use serde_json::Value;

use crate::{
    parse,
    source::{Draft, Source, fitting},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let messages = value
        .as_array()
        .or_else(|| value.get("messages")?.as_array());
    let messages = messages.ok_or("has no messages")?;
    let mut source = Source::default();
    for (index, message) in messages.iter().enumerate() {
        if message.is_null() {
            continue;
        }
        let draft = draft(message).map_err(|reason| format!("message {}: {reason}", index + 1))?;
        source.push(draft.into_iter().collect());
    }
    Ok(source)
}

/// Converts a message; `None` if it is empty.
pub(super) fn draft(message: &Value) -> Result<Option<Draft>, String> {
    let content = message.get("content").unwrap_or(&Value::Null);
    let role = match parse::text(message, "role") {
        Some("user") => Role::User,
        Some("assistant" | "model") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        Some("tool" | "function") => {
            let id = parse::id(message, "tool_call_id");
            let name = parse::text(message, "name");
            let mut draft = Draft::new(Role::User);
            add_content(&mut draft, content);
            let texts = draft.parts.iter().filter_map(|part| match part {
                domain::RawPart::Text { content } => Some(content.as_str()),
                _ => None,
            });
            let text = texts.collect::<Vec<_>>().join("\n");
            let mut result = Draft::result(id.as_deref(), name, text);
            let is_text = |part: &domain::RawPart| matches!(part, domain::RawPart::Text { .. });
            result
                .parts
                .extend(draft.parts.into_iter().filter(|part| !is_text(part)));
            return Ok(Some(result));
        }
        Some(_) => return Err("role must be system, user, assistant or tool".to_owned()),
        None => return Err("has no role".to_owned()),
    };
    let mut draft = Draft::new(role);
    draft.name = parse::text(message, "name").map(fitting);
    draft.created_at = parse::time(message, &["created_at", "timestamp", "create_time"]);
    for key in ["reasoning_content", "reasoning"] {
        if role == Role::Assistant && draft.parts.is_empty() {
            draft.reasoning(parse::text(message, key).unwrap_or_default());
        }
    }
    add_content(&mut draft, content);
    draft.text(parse::text(message, "refusal").unwrap_or_default());
    if role == Role::Assistant {
        for call in parse::list(message, "tool_calls") {
            let id = parse::id(call, "id");
            add_call(
                &mut draft,
                id.as_deref(),
                call.get("function").unwrap_or(call),
            );
        }
        if let Some(call) = message.get("function_call").filter(|call| call.is_object()) {
            add_call(&mut draft, None, call);
        }
    }
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn add_call(draft: &mut Draft, id: Option<&str>, function: &Value) {
    let arguments = function.get("arguments").map(parse::text_or_json);
    draft.call(
        id,
        parse::text(function, "name"),
        arguments.unwrap_or_default(),
    );
}

fn add_content(draft: &mut Draft, content: &Value) {
    match content {
        Value::String(text) => draft.text(text),
        Value::Array(parts) => parts.iter().for_each(|part| add_part(draft, part)),
        Value::Null => {}
        other => draft.text(&other.to_string()),
    }
}

fn add_part(draft: &mut Draft, part: &Value) {
    if let Value::String(text) = part {
        draft.text(text);
        return;
    }
    match parse::text(part, "type").unwrap_or_default() {
        "text" | "input_text" | "output_text" | "" => {
            draft.text(parse::text(part, "text").unwrap_or_default());
        }
        "refusal" => draft.text(parse::text(part, "refusal").unwrap_or_default()),
        "image_url" | "input_image" => {
            let url = part.get("image_url").unwrap_or(&Value::Null);
            let url = url.as_str().or_else(|| parse::text(url, "url"));
            match (url, parse::text(part, "file_id")) {
                (Some(url), _) => draft.url(url, "image"),
                (None, Some(id)) => draft.file(id, None, "image"),
                (None, None) => draft.text("[image without valid data]"),
            }
        }
        "input_audio" => {
            let audio = part.get("input_audio").unwrap_or(&Value::Null);
            let format = parse::text(audio, "format").unwrap_or("wav");
            let data = parse::text(audio, "data").unwrap_or_default();
            match STANDARD.decode(data) {
                Ok(data) if !data.is_empty() => {
                    draft.blob(&format!("audio/{format}"), "audio", data);
                }
                _ => draft.text("[audio without valid data]"),
            }
        }
        "file" | "input_file" => {
            let file = part.get("file").unwrap_or(part);
            if let Some(name) = parse::text(file, "filename") {
                draft.text(&format!("[file: {name}]"));
            }
            if let Some(id) = parse::text(file, "file_id") {
                draft.file(id, None, "");
            } else if let Some(data) = parse::text(file, "file_data") {
                draft.url(data, "file");
            }
        }
        kind => draft.generic(kind, part),
    }
}
