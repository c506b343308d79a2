//! Writes CSV as defined by RFC 4180, for spreadsheets. It is not read back.

use std::borrow::Cow;

use ::csv::{Terminator, WriterBuilder};

use super::{json, schema::format_time};
use domain::{Message, Metadata};

const COLUMNS: [&str; 9] = [
    "seq",
    "id",
    "role",
    "content",
    "tokens_used",
    "latency_ms",
    "created_at",
    "metadata",
    "contexts",
];

pub(super) fn header() -> Vec<u8> {
    let mut text = Vec::new();
    add(&mut text, &COLUMNS);
    text
}

pub(super) fn add_row(text: &mut Vec<u8>, message: &Message) {
    let number = |number: Option<i32>| number.map_or_else(String::new, |n| n.to_string());
    let contexts = if message.contexts.is_empty() {
        String::new()
    } else {
        json::contexts(message)
    };
    let metadata = message.metadata.as_ref();
    add(
        text,
        &[
            message.seq.to_string().as_str(),
            &message.id.to_string(),
            message.role.as_str(),
            &escape_formula(message.content.as_str()),
            &number(message.tokens_used),
            &number(message.latency_ms),
            &format_time(message.created_at),
            &metadata.map_or_else(String::new, Metadata::to_json),
            &contexts,
        ],
    );
}

/// Prefixes a cell that a spreadsheet would evaluate as a formula.
fn escape_formula(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

fn add(text: &mut Vec<u8>, cells: &[&str]) {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(text);
    // A Vec accepts all bytes.
    let _ = writer
        .write_record(cells)
        .and_then(|()| Ok(writer.flush()?));
}
