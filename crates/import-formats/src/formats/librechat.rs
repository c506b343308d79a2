//! Exports of LibreChat: one conversation with a list of messages that name their parents, or with a
//! tree of them.

use domain::Role;
use serde_json::Value;

use crate::{
    parse,
    source::{Draft, Node, Source, fitting},
};

/// Upper bound on the depth of a tree. JSON has a lower one.
const MAX_DEPTH: usize = 200;

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let messages = value.get("messages").or_else(|| value.get("messagesTree"));
    let messages = messages
        .and_then(Value::as_array)
        .ok_or("has no messages")?;
    let mut source = Source {
        id: parse::id(value, "conversationId"),
        title: parse::text(value, "title").map(str::to_owned),
        created_at: parse::time(value, &["createdAt"]),
        updated_at: parse::time(value, &["updatedAt"]),
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
    for message in messages {
        add(&mut source, message, None, is_tree, 0);
    }
    Ok(source)
}

fn add(source: &mut Source, message: &Value, parent: Option<&str>, is_tree: bool, depth: usize) {
    if !message.is_object() || depth > MAX_DEPTH {
        return;
    }
    let drafts = drafts(message);
    let previous = source.nodes.last().map(|node| node.id.clone());
    let id = parse::id(message, "messageId").unwrap_or_else(|| source.nodes.len().to_string());
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
    for child in parse::list(message, "children") {
        add(source, child, Some(&id), is_tree, depth + 1);
    }
}

fn drafts(message: &Value) -> Vec<Draft> {
    let is_user = match message.get("isCreatedByUser").and_then(Value::as_bool) {
        Some(is_user) => is_user,
        None => parse::text(message, "sender").is_some_and(|it| it.eq_ignore_ascii_case("user")),
    };
    let role = if is_user { Role::User } else { Role::Assistant };
    let mut drafts = Vec::new();
    let mut draft = Draft::new(role);
    for part in parse::list(message, "content") {
        add_part(&mut drafts, &mut draft, part);
    }
    if draft.parts.is_empty() && drafts.is_empty() {
        draft.text(parse::text(message, "text").unwrap_or_default());
    }
    for file in parse::list(message, "files") {
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
    let created_at = parse::time(message, &["createdAt", "updatedAt"]);
    for draft in &mut drafts {
        draft.created_at = created_at;
        if let Some(model) = parse::text(message, "model") {
            draft
                .metadata
                .insert("model".to_owned(), fitting(model).into());
        }
    }
    drafts
}

fn add_part(drafts: &mut Vec<Draft>, draft: &mut Draft, part: &Value) {
    let kind = parse::text(part, "type").unwrap_or_default();
    // A text is the member itself, or the member `value` of it.
    let text = |key: &str| match part.get(key) {
        Some(Value::Object(object)) => object
            .get("value")
            .and_then(Value::as_str)
            .unwrap_or_default(),
        Some(value) => value.as_str().unwrap_or_default(),
        None => "",
    };
    match kind {
        "text" | "" => draft.text(text("text")),
        "think" => draft.reasoning(text("think")),
        "error" => draft.text(&format!("[error] {}", text("error"))),
        "tool_call" if draft.role == Role::Assistant => {
            let call = part.get("tool_call").unwrap_or(&Value::Null);
            let function = call.get("function").unwrap_or(call);
            let id = parse::id(call, "id");
            let name = parse::text(function, "name");
            let arguments = function.get("args").or_else(|| function.get("arguments"));
            draft.call(
                id.as_deref(),
                name,
                arguments.map(parse::text_or_json).unwrap_or_default(),
            );
            let output = function.get("output").or_else(|| call.get("output"));
            if let Some(output) = output.filter(|output| !output.is_null()) {
                let role = draft.role;
                drafts.push(std::mem::replace(draft, Draft::new(role)));
                let output = parse::text_or_json(output);
                drafts.push(Draft::result(id.as_deref(), name, output));
            }
        }
        "image_file" => {
            let file = part.get("image_file").unwrap_or(&Value::Null);
            if let Some(id) = parse::id(file, "file_id") {
                draft.file(&id, None, "image");
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
