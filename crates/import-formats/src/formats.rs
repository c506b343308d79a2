//! The formats, one module for each.

mod chatgpt;
mod claude;
mod librechat;
mod open_webui;
mod openai;
mod sharegpt;

use serde_json::Value;

use super::{Format, parse, source::Source};

/// Reads a conversation.
///
/// # Errors
/// Fails with the reason, without content of messages.
pub(crate) fn read(format: Format, value: &Value) -> Result<Source, String> {
    match format {
        Format::ChatGpt => chatgpt::read(value),
        Format::Claude => claude::read(value),
        Format::ShareGpt => sharegpt::read(value),
        Format::OpenAi => openai::read(value),
        Format::LibreChat => librechat::read(value),
        Format::OpenWebUi => open_webui::read(value),
    }
}

/// The id of a conversation that cannot be read; `None` if it has none that is unique.
pub(crate) fn id(format: Format, value: &Value) -> Option<String> {
    match format {
        Format::ChatGpt => chatgpt::id(value),
        Format::Claude => claude::id(value),
        Format::ShareGpt | Format::OpenAi => None,
        Format::LibreChat => librechat::id(value),
        Format::OpenWebUi => open_webui::id(value),
    }
}

/// The messages of a list. Null is none.
///
/// # Errors
/// Fails with the reason if an element is no object.
fn messages(list: &[Value]) -> impl Iterator<Item = Result<(usize, &Value), String>> {
    let elements = list.iter().enumerate();
    let elements = elements.filter(|(_, message)| !message.is_null());
    elements.map(|(index, message)| match message {
        Value::Object(_) => Ok((index, message)),
        _ => Err(parse::in_message(None, index, "is no object")),
    })
}

/// Reason of a rejection because of the author of a message.
fn unknown_author(author: Option<&Value>) -> String {
    match author {
        None | Some(Value::Null) => "has no author".to_owned(),
        Some(author) => format!("{} is no known author", parse::quoted(author)),
    }
}
