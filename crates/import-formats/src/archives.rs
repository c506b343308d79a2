//! Recognizes archives of this service among other files.

use serde_json::Value;

/// Value of the member `format` of an archive.
const FORMAT: &str = "conversation-memory";

/// Whether a file is an archive. `start` are its first bytes in UTF-8, or as ASCII.
pub(crate) fn is_archive_start(start: &[u8]) -> bool {
    text_at(start, &["format"]).as_deref() == Some(FORMAT)
}

/// Whether a JSON value is an archive.
pub(crate) fn is_archive(value: &Value) -> bool {
    value.get("format").and_then(Value::as_str) == Some(FORMAT)
}

/// The id of the conversation in an archive; `None` if its first bytes do not contain it.
pub fn archive_id(start: &[u8]) -> Option<String> {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    text_at(start, &["conversation", "id"])
}

/// Object or list whose end has not been reached.
struct Open {
    is_object: bool,
    /// The member whose value follows.
    key: Option<Vec<u8>>,
}

/// The text at a path of members of the first object, of which the end may be missing.
fn text_at(json: &[u8], path: &[&str]) -> Option<String> {
    let mut open: Vec<Open> = Vec::new();
    let mut rest = json.trim_ascii_start();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'{' | b'[' => open.push(Open {
                is_object: byte == b'{',
                key: None,
            }),
            b'}' | b']' => {
                open.pop();
                open.last_mut()?.key = None;
            }
            b'"' => {
                let end = end_of_text(after)?;
                let text = &rest[..=end + 1];
                rest = &after[end + 1..];
                let is_at_path = open.len() == path.len()
                    && (open.iter().zip(path)).all(|(open, key)| {
                        open.key.as_deref().and_then(decoded).as_deref() == Some(*key)
                    });
                if is_at_path {
                    return decoded(text);
                }
                let last = open.last_mut()?;
                last.key = match last.key {
                    None if last.is_object => Some(text.to_vec()),
                    _ => None,
                };
                continue;
            }
            b',' => open.last_mut()?.key = None,
            // White space, a colon, or a number or name.
            _ => {}
        }
        rest = after;
    }
    None
}

/// The position of the quotation mark that ends a text.
fn end_of_text(text: &[u8]) -> Option<usize> {
    let mut is_escaped = false;
    text.iter().position(|&byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

fn decoded(text: &[u8]) -> Option<String> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_archives_by_their_own_members() {
        let metadata = "x\\\"}".repeat(10_000);
        for (start, is_archive, id) in [
            (
                r#"{"format" : "conversation-memory","version":1,"conversation":{"id":"a""#,
                true,
                Some("a"),
            ),
            (
                r#" {"conversation":{"metadata":{"id":"b","list":[{"id":"c"}]},"n":-1,"id":"a"},
                    "version":1,"for\u006dat":"conversation-memory"}"#,
                true,
                Some("a"),
            ),
            (
                &format!(
                    r#"{{"conversation":{{"title":"{metadata}","id":"a"}},"format":"conversation-memory""#
                ),
                true,
                Some("a"),
            ),
            (
                r#"{"metadata":{"format":"conversation-memory"},"mapping":{"conversation":{"id":"a"}}}"#,
                false,
                None,
            ),
            (
                r#"{"title":"\"format\":\"conversation-memory\""}"#,
                false,
                None,
            ),
            (
                r#"{"format":"other"} {"format":"conversation-memory"}"#,
                false,
                None,
            ),
            (r#"[{"format":"conversation-memory"}]"#, false, None),
            (r#"{"format":"conversation-mem"#, false, None),
            ("}", false, None),
            ("\"", false, None),
            ("", false, None),
        ] {
            assert_eq!(is_archive_start(start.as_bytes()), is_archive, "{start}");
            assert_eq!(archive_id(start.as_bytes()).as_deref(), id, "{start}");
        }
    }
}
