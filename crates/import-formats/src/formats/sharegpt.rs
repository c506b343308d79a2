//! ShareGPT, and data sets of the same form: `conversations` with `from` and `value`.

use domain::Role;
use serde_json::Value;

use super::{openai, unknown_author};
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
        created_at: parse::time(value, &["created_at", "create_time", "timestamp"])?,
        ..Source::default()
    };
    let name = parse::id(value, "id");
    source.note("source_name", name.as_deref());
    source.note("model", parse::text(value, "model"));
    let system = parse::content(value, "system");
    if !system.is_empty() {
        let mut draft = Draft::new(Role::System);
        draft.text(&system);
        source.push(vec![draft]);
    }
    for turn in super::messages(turns) {
        let (index, turn) = turn?;
        let draft = draft(turn).map_err(|reason| parse::in_message(None, index, &reason))?;
        source.push(draft.into_iter().collect());
    }
    Ok(source)
}

fn draft(turn: &Value) -> Result<Option<Draft>, String> {
    if turn.get("from").is_none_or(Value::is_null) && turn.get("role").is_some() {
        return openai::draft(turn);
    }
    let created_at = parse::time(turn, &["created_at", "timestamp"])?;
    let mut draft = untimed(turn)?;
    draft.created_at = created_at;
    Ok((!draft.parts.is_empty()).then_some(draft))
}

fn untimed(turn: &Value) -> Result<Draft, String> {
    let author = turn.get("from");
    let Some(from) = parse::text(turn, "from") else {
        return Err(unknown_author(author));
    };
    let texts = ["value", "text", "content"];
    let mut texts = texts.iter().filter_map(|key| turn.get(key)).peekable();
    texts.peek().ok_or("has no value")?;
    let text = texts.find(|text| !text.is_null()).map(parse::text_or_json);
    let text = text.unwrap_or_default();
    let role = match from.to_lowercase().as_str() {
        "human" | "user" => Role::User,
        "system" => Role::System,
        "gpt" | "assistant" | "chatgpt" | "bing" | "bard" | "claude" | "model" | "ai" | "bot" => {
            Role::Assistant
        }
        "tool" | "function" | "observation" | "function_response" => {
            let name = parse::text(turn, "name");
            return Ok(Draft::result(None, name, text.into_owned()));
        }
        "function_call" | "tool_call" => return Ok(call(&text)),
        _ => return Err(unknown_author(author)),
    };
    let mut draft = Draft::new(role);
    draft.text(&text);
    Ok(draft)
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
            draft.call(None, Some(name), arguments.into_owned());
        }
        (None, _) => draft.call(None, None, text.to_owned()),
    }
    draft
}
