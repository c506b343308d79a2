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
        id: id(value),
        title: parse::text(value, "title")
            .or_else(|| parse::text(chat, "title"))
            .map(str::to_owned),
        created_at: match parse::time(value, &["created_at"])? {
            None => parse::time(chat, &["timestamp"])?,
            created_at => created_at,
        },
        updated_at: parse::time(value, &["updated_at"])?,
        current: parse::id(history, "currentId"),
        ..Source::default()
    };
    source.note(
        "model",
        parse::list(chat, "models").first().and_then(Value::as_str),
    );
    match history.get("messages").and_then(Value::as_object) {
        Some(messages) if !messages.is_empty() => {
            for (id, message) in messages.iter().filter(|(_, message)| !message.is_null()) {
                let draft =
                    draft(message).map_err(|reason| parse::in_message(Some(id), 0, &reason))?;
                source.nodes.push(Node {
                    id: id.clone(),
                    parent: parse::id(message, "parentId"),
                    messages: draft.into_iter().collect(),
                });
            }
            source.nodes.sort_by_key(|node| {
                let first = node.messages.first();
                first.and_then(|draft| draft.created_at)
            });
        }
        _ => {
            let messages = chat.get("messages").and_then(Value::as_array);
            for message in super::messages(messages.ok_or("has no chat.history.messages")?) {
                let (index, message) = message?;
                let draft =
                    draft(message).map_err(|reason| parse::in_message(None, index, &reason))?;
                source.push(draft.into_iter().collect());
            }
        }
    }
    Ok(source)
}

pub(super) fn id(value: &Value) -> Option<String> {
    let chat = value.get("chat").unwrap_or(&Value::Null);
    parse::id(value, "id").or_else(|| parse::id(chat, "id"))
}

fn draft(message: &Value) -> Result<Option<Draft>, String> {
    let mut draft = match openai::draft(message)? {
        Some(draft) => draft,
        None => Draft::new(match parse::text(message, "role") {
            Some("user") => Role::User,
            _ => Role::Assistant,
        }),
    };
    let error = match message.get("error") {
        Some(error @ Value::Object(_)) => Some(parse::content(error, "content")),
        Some(Value::String(error)) => Some(error.into()),
        // The text of the error is the content.
        _ => None,
    };
    if let Some(error) = error {
        draft.text(format!("[error] {error}").trim_end());
    }
    for file in parse::contents(message, "files") {
        add_file(&mut draft, file);
    }
    draft.created_at = parse::time(message, &["timestamp"])?;
    if let Some(model) = parse::text(message, "model") {
        draft
            .metadata
            .insert("model".to_owned(), fitting(model).into());
    }
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn add_file(draft: &mut Draft, file: &Value) {
    if !file.is_object() {
        draft.text(&parse::text_or_json(file));
        return;
    }
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
