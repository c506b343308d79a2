//! Ids, page tokens and files that a server has returned to a user. Operations refer to them by kind
//! and position, because two servers generate different ids for the same operations.

use std::collections::HashMap;

use serde_json::Value;

/// Kind of a value that later operations name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Conversation,
    Session,
    Message,
    PageToken,
    File,
}

/// Each kind with its name in references.
const KINDS: [(Kind, &str); 5] = [
    (Kind::Conversation, "conversation"),
    (Kind::Session, "session"),
    (Kind::Message, "message"),
    (Kind::PageToken, "page"),
    (Kind::File, "file"),
];

/// Values that one server has returned to one user.
#[derive(Default)]
pub(crate) struct Known([Values; KINDS.len()]);

#[derive(Default)]
struct Values {
    /// The values in the order of the first return.
    listed: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Known {
    pub(crate) fn of(&self, kind: Kind) -> &[String] {
        &self.0[kind as usize].listed
    }

    pub(crate) fn position(&self, kind: Kind, value: &str) -> Option<usize> {
        self.0[kind as usize].positions.get(value).copied()
    }

    /// Adds a value unless it is known.
    pub(crate) fn add(&mut self, kind: Kind, value: &str) {
        let Values { listed, positions } = &mut self.0[kind as usize];
        if !value.is_empty() && !positions.contains_key(value) {
            positions.insert(value.to_owned(), listed.len());
            listed.push(value.to_owned());
        }
    }

    /// Adds the ids and the page token in a response.
    pub(crate) fn add_response(&mut self, response: &Value) {
        if let Some(token) = response["nextPageToken"].as_str() {
            self.add(Kind::PageToken, token);
        }
        for (one, many, kind) in [
            ("conversation", "conversations", Kind::Conversation),
            ("session", "sessions", Kind::Session),
            ("message", "messages", Kind::Message),
        ] {
            let listed = response[many].as_array().into_iter().flatten();
            for object in listed.chain([&response[one]]) {
                if let Some(id) = object["id"].as_str() {
                    self.add(kind, id);
                }
            }
        }
    }

    /// Replaces the references in a request by the values of this server.
    pub(crate) fn resolve(&self, request: &Value) -> Value {
        match request {
            Value::String(text) => self.resolve_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), self.resolve(value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    pub(crate) fn resolve_text(&self, text: &str) -> String {
        referred(text).map_or_else(
            || text.to_owned(),
            |(kind, position)| self.of(kind)[position].clone(),
        )
    }
}

/// Reference to a value by its position.
pub(crate) fn reference(kind: Kind, position: usize) -> String {
    let (_, name) = KINDS[kind as usize];
    format!("@{name}/{position}")
}

fn referred(text: &str) -> Option<(Kind, usize)> {
    let (name, position) = text.strip_prefix('@')?.split_once('/')?;
    let (kind, _) = KINDS.into_iter().find(|(_, known)| *known == name)?;
    Some((kind, position.parse().ok()?))
}
