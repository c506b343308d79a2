//! Exports of LibreChat: one conversation with a list of messages that name their parents, or with a
//! tree of them.

use std::borrow::Cow;

use domain::Role;
use serde_json::Value;

use super::unknown_author;
use crate::{
    parse,
    source::{Draft, Node, Source, fitting},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let messages = value.get("messages").or_else(|| value.get("messagesTree"));
    let messages = messages
        .and_then(Value::as_array)
        .ok_or("has no messages")?;
    let mut source = Source {
        id: id(value),
        title: parse::text(value, "title").map(str::to_owned),
        created_at: parse::time(value, &["createdAt"])?,
        updated_at: parse::time(value, &["updatedAt"])?,
        ..Source::default()
    };
    let options = value.get("options").unwrap_or(&Value::Null);
    source.note(
        "model",
        parse::text(value, "model").or_else(|| parse::text(options, "model")),
    );
    source.note("endpoint", parse::text(value, "endpoint"));
    let is_tree = messages.iter().any(|message| {
        message.get("parentMessageId").is_some() || message.get("children").is_some()
    });
    for message in super::messages(messages) {
        let (_, message) = message?;
        add(&mut source, message, None, is_tree)?;
    }
    Ok(source)
}

pub(super) fn id(value: &Value) -> Option<String> {
    parse::id(value, "conversationId")
}

/// Adds a message and those below it, as deep as they are nested in JSON.
fn add(
    source: &mut Source,
    message: &Value,
    parent: Option<&str>,
    is_tree: bool,
) -> Result<(), String> {
    let id = parse::id(message, "messageId");
    let number = source.nodes.len();
    let drafts =
        drafts(message).map_err(|reason| parse::in_message(id.as_deref(), number, &reason))?;
    let previous = source.nodes.last().map(|node| node.id.clone());
    let id = id.unwrap_or_else(|| number.to_string());
    let parent = if is_tree {
        parse::id(message, "parentMessageId").or_else(|| parent.map(str::to_owned))
    } else {
        previous
    };
    source.nodes.push(Node {
        id: id.clone(),
        parent,
        messages: drafts,
    });
    for child in super::messages(parse::contents(message, "children")) {
        let (_, child) = child
            .map_err(|_| parse::in_message(Some(&id), number, "has a child that is no object"))?;
        add(source, child, Some(&id), is_tree)?;
    }
    Ok(())
}

/// The author: the user, or else a model or an agent, whose name is the sender.
fn role(message: &Value) -> Result<Role, String> {
    let sender = message.get("sender").unwrap_or(&Value::Null);
    match (message.get("isCreatedByUser"), sender) {
        (Some(Value::Bool(true)), _) => Ok(Role::User),
        (Some(Value::Bool(false)), _) => Ok(Role::Assistant),
        (None | Some(Value::Null), Value::String(name)) if !name.trim().is_empty() => {
            let is_user = name.eq_ignore_ascii_case("user");
            Ok(if is_user { Role::User } else { Role::Assistant })
        }
        (None | Some(Value::Null), sender) => Err(unknown_author(Some(sender))),
        (Some(other), _) => {
            let shown = parse::quoted(other);
            Err(format!(
                "isCreatedByUser is {shown} instead of true or false"
            ))
        }
    }
}

fn drafts(message: &Value) -> Result<Vec<Draft>, String> {
    let role = role(message);
    let mut drafts = drafts_of(message, role.clone().unwrap_or(Role::Assistant));
    if !drafts.is_empty() {
        role?;
    }
    let created_at = parse::time(message, &["createdAt", "updatedAt"])?;
    for draft in &mut drafts {
        draft.created_at = created_at;
    }
    Ok(drafts)
}

fn drafts_of(message: &Value, role: Role) -> Vec<Draft> {
    let mut drafts = Vec::new();
    let mut draft = Draft::new(role);
    for part in parse::contents(message, "content") {
        add_part(&mut drafts, &mut draft, part);
    }
    if draft.parts.is_empty() && drafts.is_empty() {
        draft.text(&parse::content(message, "text"));
    }
    for file in parse::contents(message, "files") {
        if !file.is_object() {
            draft.text(&parse::text_or_json(file));
        }
        if let Some(name) = parse::text(file, "filename") {
            draft.text(&format!("[file: {name}]"));
        }
        if let Some(id) = parse::id(file, "file_id") {
            let mime_type = parse::text(file, "type");
            let is_image = mime_type.is_some_and(|it| it.starts_with("image/"));
            draft.file(&id, mime_type, if is_image { "image" } else { "" });
        }
    }
    drafts.push(draft);
    drafts.retain(|draft| !draft.parts.is_empty());
    for draft in &mut drafts {
        if let Some(model) = parse::text(message, "model") {
            draft
                .metadata
                .insert("model".to_owned(), fitting(model).into());
        }
    }
    drafts
}

fn add_part(drafts: &mut Vec<Draft>, draft: &mut Draft, part: &Value) {
    if !part.is_object() {
        draft.text(&parse::text_or_json(part));
        return;
    }
    let kind = parse::text(part, "type").unwrap_or_default();
    // A text is the member itself, or the member `value` of it.
    let text = |key: &str| match part.get(key) {
        Some(text) => parse::text_or_json(text.get("value").unwrap_or(text)),
        None => Cow::default(),
    };
    match kind {
        "text" => draft.text(&text("text")),
        "" if part.get("text").is_some() => draft.text(&text("text")),
        "" => draft.generic("librechat", part),
        "think" => draft.reasoning(&text("think")),
        "error" => draft.text(&format!("[error] {}", text("error"))),
        "tool_call" if draft.role == Role::Assistant && part.get(kind).is_some() => {
            let call = part.get("tool_call").unwrap_or(&Value::Null);
            let function = call.get("function").unwrap_or(call);
            let id = parse::id(call, "id");
            let name = parse::text(function, "name");
            let arguments = function.get("args").or_else(|| function.get("arguments"));
            let arguments = arguments.map(parse::text_or_json).unwrap_or_default();
            draft.call(id.as_deref(), name, arguments.into_owned());
            let output = function.get("output").or_else(|| call.get("output"));
            if let Some(output) = output.filter(|output| !output.is_null()) {
                let role = draft.role;
                drafts.push(std::mem::replace(draft, Draft::new(role)));
                let output = parse::text_or_json(output).into_owned();
                drafts.push(Draft::result(id.as_deref(), name, output));
            }
        }
        "image_file" => {
            let file = part.get("image_file").unwrap_or(&Value::Null);
            match parse::id(file, "file_id") {
                Some(id) => draft.file(&id, None, "image"),
                None => draft.generic(kind, part),
            }
        }
        "image_url" => {
            let url = part.get("image_url").unwrap_or(&Value::Null);
            let url = url.as_str().or_else(|| parse::text(url, "url"));
            draft.url(url.unwrap_or_default(), "image");
        }
        kind => draft.generic(kind, part),
    }
}
