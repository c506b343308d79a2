use serde::Serialize;

use crate::domain::Role;

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    content: &'a str,
}

/// Messages as tools that watch agents show them. For spans that are to show what
/// was said, and for nothing else.
pub(super) fn messages<'a>(messages: impl Iterator<Item = (Role, &'a str)>) -> String {
    let said: Vec<_> = messages
        .map(|(role, content)| Said {
            role: role.as_str(),
            content,
        })
        .collect();
    serde_json::to_string(&said).unwrap_or_default()
}
