use serde::Serialize;

use crate::domain::Role;

/// A message in a span attribute.
#[derive(Serialize)]
struct CapturedMessage<'a> {
    role: &'static str,
    content: &'a str,
}

/// Messages as JSON in the form that observability tools display. Used only for spans, where
/// the capture of content is enabled.
pub(super) fn messages<'a>(messages: impl Iterator<Item = (Role, &'a str)>) -> String {
    let captured: Vec<_> = messages
        .map(|(role, content)| CapturedMessage {
            role: role.as_str(),
            content,
        })
        .collect();
    serde_json::to_string(&captured).unwrap_or_default()
}
