//! Detects what a file, or a value in it, is.

use serde_json::Value;

use super::{Format, archives::is_archive_start, parse};

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// JSON, in one of the formats or none of them.
    Json,
    /// A conversation that this service exported, as JSON or JSON Lines.
    Archive,
    /// The file is a zip file with entries.
    Zip,
    /// Nothing.
    Empty,
    /// Something else, with its name.
    Other(&'static str),
}

/// Number of bytes at the beginning of a file by which it is recognized. The properties of a conversation
/// of this service, before which or after which its `format` is, fit.
pub const START_BYTES: u64 = 256 << 10;

/// Detects the kind of a file. `start` are its first bytes, at best [`START_BYTES`].
pub fn detect(start: &[u8]) -> FileKind {
    const MAGIC: [(&[u8], FileKind); 10] = [
        (b"PK\x03\x04", FileKind::Zip),
        // A file without entries begins with the record at its end, of which ZIP64 has another form.
        (b"PK\x05\x06", FileKind::Zip),
        (b"PK\x06\x06", FileKind::Zip),
        (b"\x1f\x8b", FileKind::Other("a gzip file")),
        (b"%PDF", FileKind::Other("a PDF document")),
        (b"\x89PNG", FileKind::Other("a PNG image")),
        (b"\xff\xd8\xff", FileKind::Other("a JPEG image")),
        (b"SQLite format 3", FileKind::Other("a SQLite database")),
        (b"7z\xbc\xaf", FileKind::Other("a 7-Zip file")),
        (b"\xfd7zXZ", FileKind::Other("an xz file")),
    ];
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)) {
        return *kind;
    }
    // Marks of byte orders, and the zero bytes of ASCII in UTF-16.
    let text: Vec<u8> = (start.iter().copied())
        .filter(|byte| !matches!(byte, 0 | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF))
        .collect();
    let text = text.trim_ascii_start();
    match text.first() {
        None => FileKind::Empty,
        Some(b'{') if is_archive_start(text) => FileKind::Archive,
        Some(b'{' | b'[') => FileKind::Json,
        Some(b'<') if starts_with(text, b"<!doctype html") || starts_with(text, b"<html") => {
            FileKind::Other("an HTML page")
        }
        Some(b'<') => FileKind::Other("an XML document"),
        // JSON Lines whose first line is broken.
        Some(_) if has_object_in_second_line(text) => FileKind::Json,
        Some(_) if is_csv(text) => FileKind::Other("a table (CSV)"),
        Some(_) if std::str::from_utf8(&text[..text.len().min(64)]).is_ok() => {
            FileKind::Other("a text")
        }
        Some(_) => FileKind::Other("a binary file"),
    }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn has_object_in_second_line(text: &[u8]) -> bool {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.nth(1).is_some_and(|line| line.starts_with(b"{\""))
}

fn is_csv(text: &[u8]) -> bool {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.split(|byte| *byte == b',').count() > 2 && !line.contains(&b'{')
}

/// Format of a value that has a conversation.
pub(crate) fn format_of(value: &Value) -> Option<Format> {
    if let Some(items) = value.as_array() {
        return items.first().and_then(format_of_message);
    }
    let has_list = |key: &str| value.get(key).is_some_and(Value::is_array);
    if value.get("mapping").is_some_and(Value::is_object) {
        return Some(Format::ChatGpt);
    }
    if has_list("chat_messages") {
        return Some(Format::Claude);
    }
    if value.get("chat").is_some_and(Value::is_object) {
        return Some(Format::OpenWebUi);
    }
    if has_list("conversations") || has_list("conversation") || has_list("items") {
        return Some(Format::ShareGpt);
    }
    let is_librechat = has_list("messagesTree")
        || (has_list("messages")
            && (value.get("conversationId").is_some()
                || parse::list(value, "messages")
                    .iter()
                    .any(|it| it.get("messageId").is_some())));
    if is_librechat {
        return Some(Format::LibreChat);
    }
    has_list("messages").then_some(Format::OpenAi)
}

/// Format of a list whose elements are messages.
pub(crate) fn format_of_message(value: &Value) -> Option<Format> {
    let is_conversation = value.is_object() && format_of(value).is_some();
    if is_conversation {
        None
    } else if value.get("role").is_some_and(Value::is_string) {
        Some(Format::OpenAi)
    } else if value.get("from").is_some_and(Value::is_string) && value.get("value").is_some() {
        Some(Format::ShareGpt)
    } else {
        None
    }
}

/// Describes a value of no known format, without its content.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => "a number or truth value".to_owned(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(members) => {
            let is_name = |name: &&String| {
                name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            let names: Vec<_> = members.keys().filter(is_name).take(6).cloned().collect();
            if names.is_empty() {
                "an object without known members".to_owned()
            } else {
                format!("an object with the members {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detects_kinds_of_files() {
        for (start, kind) in [
            (&b"PK\x03\x04..."[..], FileKind::Zip),
            (b"PK\x06\x06", FileKind::Zip),
            (b"", FileKind::Empty),
            (b" \r\n", FileKind::Empty),
            (b"\xef\xbb\xbf [1", FileKind::Json),
            (b"\xff\xfe[\0{\0", FileKind::Json),
            (b"{\"format\" : \"conversation-memory\",", FileKind::Archive),
            (b"<!DOCTYPE HTML>", FileKind::Other("an HTML page")),
            (b"<?xml", FileKind::Other("an XML document")),
            (b"id,role,content\n1,2,3", FileKind::Other("a table (CSV)")),
            (b"%PDF-1.7", FileKind::Other("a PDF document")),
            (b"hello", FileKind::Other("a text")),
        ] {
            assert_eq!(detect(start), kind, "{}", String::from_utf8_lossy(start));
        }
    }
}
