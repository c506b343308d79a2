//! Message arrays of OpenAI's Chat Completions, and JSON Lines for fine-tuning with one in each line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::{RawPart, Role};
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
    for message in super::messages(messages) {
        let (index, message) = message?;
        let draft = draft(message).map_err(|reason| parse::in_message(None, index, &reason))?;
        source.push(draft.into_iter().collect());
    }
    Ok(source)
}

/// Converts a message; `None` if it is empty.
pub(super) fn draft(message: &Value) -> Result<Option<Draft>, String> {
    let mut draft = untimed(message)?;
    draft.created_at = parse::time(message, &["created_at", "timestamp", "create_time"])?;
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn untimed(message: &Value) -> Result<Draft, String> {
    let content = message.get("content").unwrap_or(&Value::Null);
    let role = match parse::text(message, "role") {
        Some("user") => Role::User,
        Some("assistant" | "model") => Role::Assistant,
        Some("system" | "developer") => Role::System,
        Some("tool" | "function") => return Ok(result(message, content)),
        Some(_) => {
            let shown = parse::quoted(&message["role"]);
            return Err(format!(
                "role must be system, user, assistant or tool, not {shown}"
            ));
        }
        None => return Err("has no role".to_owned()),
    };
    let mut draft = Draft::new(role);
    draft.name = parse::text(message, "name").map(fitting);
    for key in ["reasoning_content", "reasoning"] {
        if role == Role::Assistant && draft.parts.is_empty() {
            draft.reasoning(&parse::content(message, key));
        }
    }
    add_content(&mut draft, content);
    draft.text(&parse::content(message, "refusal"));
    if role == Role::Assistant {
        for call in parse::contents(message, "tool_calls") {
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
    Ok(draft)
}

fn result(message: &Value, content: &Value) -> Draft {
    let mut draft = Draft::new(Role::Tool);
    add_content(&mut draft, content);
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    for part in draft.parts {
        match part {
            RawPart::Text { content } => texts.push(content),
            other => others.push(other),
        }
    }
    let id = parse::id(message, "tool_call_id");
    let name = parse::text(message, "name");
    let mut result = Draft::result(id.as_deref(), name, texts.join("\n"));
    result.parts.extend(others);
    result
}

fn add_call(draft: &mut Draft, id: Option<&str>, function: &Value) {
    let arguments = function.get("arguments").map(parse::text_or_json);
    draft.call(
        id,
        parse::text(function, "name"),
        arguments.unwrap_or_default().into_owned(),
    );
}

fn add_content(draft: &mut Draft, content: &Value) {
    match content {
        Value::Array(parts) => parts.iter().for_each(|part| add_part(draft, part)),
        part => add_part(draft, part),
    }
}

fn add_part(draft: &mut Draft, part: &Value) {
    if !part.is_object() {
        draft.text(&parse::text_or_json(part));
        return;
    }
    match parse::text(part, "type").unwrap_or_default() {
        "text" | "input_text" | "output_text" => draft.text(&parse::content(part, "text")),
        "" if part.get("text").is_some() => draft.text(&parse::content(part, "text")),
        "" => draft.generic("openai", part),
        "refusal" => draft.text(&parse::content(part, "refusal")),
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
            let before = draft.parts.len();
            if let Some(name) = parse::text(file, "filename") {
                draft.text(&format!("[file: {name}]"));
            }
            if let Some(id) = parse::text(file, "file_id") {
                draft.file(id, None, "");
            } else if let Some(data) = parse::text(file, "file_data") {
                draft.url(data, "file");
            }
            if draft.parts.len() == before {
                draft.generic("file", part);
            }
        }
        kind => draft.generic(kind, part),
    }
}
