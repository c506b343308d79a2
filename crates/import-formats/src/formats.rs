//! The formats, one module for each.

mod chatgpt;
mod claude;
mod librechat;
mod open_webui;
mod openai;
mod sharegpt;

use serde_json::Value;

use super::{Format, source::Source};

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
