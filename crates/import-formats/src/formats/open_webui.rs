//! Exports of Open WebUI: a list of chats, each a tree of messages (`chat.history`).

use domain::Role;
use serde_json::Value;

use super::openai;
use crate::{
    parse,
    source::{Draft, Node, Source, fitting},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let chat = value.get("chat").unwrap_or(&Value::Null);
    let history = chat.get("history").unwrap_or(&Value::Null);
    let mut source = Source {
        id: parse::id(value, "id").or_else(|| parse::id(chat, "id")),
        title: parse::text(value, "title")
            .or_else(|| parse::text(chat, "title"))
            .map(str::to_owned),
        created_at: parse::time(value, &["created_at"])
            .or_else(|| parse::time(chat, &["timestamp"])),
        updated_at: parse::time(value, &["updated_at"]),
        current: parse::id(history, "currentId"),
        ..Source::default()
    };
    source.note(
        "model",
        parse::list(chat, "models").first().and_then(Value::as_str),
    );
    match history.get("messages").and_then(Value::as_object) {
        Some(messages) if !messages.is_empty() => {
            for (id, message) in messages.iter().filter(|(_, message)| message.is_object()) {
                source.nodes.push(Node {
                    id: id.clone(),
                    parent: parse::id(message, "parentId"),
                    messages: draft(message)?.into_iter().collect(),
                });
            }
            source.nodes.sort_by_key(|node| {
                let first = node.messages.first();
                first.and_then(|draft| draft.created_at)
            });
        }
        _ => {
            let messages = chat.get("messages").and_then(Value::as_array);
            for message in messages.ok_or("has no chat.history.messages")? {
                if message.is_object() {
                    source.push(draft(message)?.into_iter().collect());
                }
            }
        }
    }
    Ok(source)
}

fn draft(message: &Value) -> Result<Option<Draft>, String> {
    let mut draft = match openai::draft(message)? {
        Some(draft) => draft,
        None => Draft::new(match parse::text(message, "role") {
            Some("user") => Role::User,
            _ => Role::Assistant,
        }),
    };
    if let Some(error) = message.get("error").filter(|error| error.is_object()) {
        let text = parse::text(error, "content").unwrap_or_default();
        draft.text(format!("[error] {text}").trim_end());
    }
    for file in parse::list(message, "files") {
        add_file(&mut draft, file);
    }
    draft.created_at = parse::time(message, &["timestamp"]);
    if let Some(model) = parse::text(message, "model") {
        draft
            .metadata
            .insert("model".to_owned(), fitting(model).into());
    }
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn add_file(draft: &mut Draft, file: &Value) {
    let is_image = parse::text(file, "type") == Some("image");
    let url = parse::text(file, "url");
    let has_data = url.is_some_and(|url| url.starts_with("data:") || url.starts_with("http"));
    if let (true, Some(url)) = (has_data, url) {
        draft.url(url, if is_image { "image" } else { "" });
        return;
    }
    if let Some(name) = parse::text(file, "name") {
        draft.text(&format!("[file: {name}]"));
    }
    if let Some(id) = parse::id(file, "id").or_else(|| url.map(str::to_owned)) {
        draft.file(&id, None, if is_image { "image" } else { "" });
    }
}
