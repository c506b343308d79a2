//! ShareGPT, and data sets of the same form: `conversations` with `from` and `value`.

use domain::Role;
use serde_json::Value;

use super::openai;
use crate::{
    parse,
    source::{Draft, Source},
};

pub(super) fn read(value: &Value) -> Result<Source, String> {
    let turns = value.as_array().or_else(|| {
        let lists = ["conversations", "conversation", "items"];
        lists.iter().find_map(|key| value.get(key)?.as_array())
    });
    let turns = turns.ok_or("has no conversations, the list of its messages")?;
    // The ids of such data sets are not unique: parts of a conversation share one, and so do data sets.
    let mut source = Source {
        title: parse::text(value, "title").map(str::to_owned),
        created_at: parse::time(value, &["created_at", "create_time", "timestamp"]),
        ..Source::default()
    };
    let name = parse::id(value, "id");
    source.note("source_name", name.as_deref());
    source.note("model", parse::text(value, "model"));
    if let Some(system) = parse::text(value, "system") {
        let mut draft = Draft::new(Role::System);
        draft.text(system);
        source.push(vec![draft]);
    }
    for (index, turn) in turns.iter().enumerate() {
        if turn.is_null() {
            continue;
        }
        let draft = draft(turn).map_err(|reason| format!("message {}: {reason}", index + 1))?;
        source.push(draft.into_iter().collect());
    }
    Ok(source)
}

fn draft(turn: &Value) -> Result<Option<Draft>, String> {
    let Some(from) = parse::text(turn, "from") else {
        return openai::draft(turn).map_err(|_| "has no from".to_owned());
    };
    let text = turn.get("value").or_else(|| turn.get("text"));
    let text = text.map(parse::text_or_json).unwrap_or_default();
    let role = match from.to_lowercase().as_str() {
        "human" | "user" => Role::User,
        "system" => Role::System,
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "claude" | "model" | "ai" | "bot" => {
            Role::Assistant
        }
        "tool" | "function" | "observation" | "function_response" => {
            return Ok(Some(Draft::result(None, parse::text(turn, "name"), text)));
        }
        "function_call" | "tool_call" => return Ok(Some(call(&text))),
        _ => return Err("from is no known author".to_owned()),
    };
    let mut draft = Draft::new(role);
    draft.text(&text);
    draft.created_at = parse::time(turn, &["created_at", "timestamp"]);
    Ok((!draft.parts.is_empty()).then_some(draft))
}

/// A call, whose text is JSON with a name and arguments.
fn call(text: &str) -> Draft {
    let mut draft = Draft::new(Role::Assistant);
    let parsed = parse::value(text.as_bytes()).ok();
    let name = parsed.as_ref().and_then(|call| parse::text(call, "name"));
    let arguments = parsed.as_ref().and_then(|call| call.get("arguments"));
    match (name, arguments) {
        (Some(name), arguments) => {
            let arguments = arguments.map(parse::text_or_json).unwrap_or_default();
            draft.call(None, Some(name), arguments);
        }
        (None, _) => draft.call(None, None, text.to_owned()),
    }
    draft
}
