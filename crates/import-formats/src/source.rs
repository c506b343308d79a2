//! A conversation as a format describes it, before ids, order and tool calls are settled.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use domain::{Part, RawPart, Role};
use serde_json::{Map, Value};

use super::ids;

/// Conversation of a file. Its messages are the nodes of a tree, or a chain of nodes.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// Id that no other conversation of the product has; `None` identifies it by its content.
    pub(crate) id: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) updated_at: Option<DateTime<Utc>>,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) nodes: Vec<Node>,
    /// Node that the user saw last; `None` is the newest one without children.
    pub(crate) current: Option<String>,
}

/// Node of the tree. It may have no messages, as the root of most products, or several.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) parent: Option<String>,
    pub(crate) messages: Vec<Draft>,
}

/// Message that is not validated yet.
pub(crate) struct Draft {
    pub(crate) role: Role,
    pub(crate) name: Option<String>,
    pub(crate) parts: Vec<RawPart>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) metadata: Map<String, Value>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").finish_non_exhaustive()
    }
}

impl Source {
    /// Adds the messages of the next node of a chain.
    pub(crate) fn push(&mut self, messages: Vec<Draft>) {
        let parent = self.nodes.last().map(|node| node.id.clone());
        let id = self.nodes.len().to_string();
        self.nodes.push(Node {
            id,
            parent,
            messages,
        });
    }

    pub(crate) fn note(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.metadata.insert(key.to_owned(), fitting(value).into());
        }
    }
}

impl Draft {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            name: None,
            parts: Vec::new(),
            created_at: None,
            metadata: Map::new(),
        }
    }

    /// Adds a text, unless it is empty.
    pub(crate) fn text(&mut self, text: &str) {
        if !text.is_empty() {
            let content = text.to_owned();
            self.parts.push(RawPart::Text { content });
        }
    }

    pub(crate) fn reasoning(&mut self, text: &str) {
        if !text.is_empty() {
            let content = text.to_owned();
            self.parts.push(RawPart::Reasoning { content });
        }
    }

    /// Adds a call. An empty id is replaced when calls are paired with their results.
    pub(crate) fn call(&mut self, id: Option<&str>, name: Option<&str>, arguments: String) {
        self.parts.push(RawPart::ToolCall {
            id: ids::call(id.unwrap_or_default()),
            name: fitting(name.unwrap_or("tool")),
            arguments,
        });
    }

    /// A message with the result of a call. Without an id, it belongs to the first call that has no result.
    pub(crate) fn result(id: Option<&str>, name: Option<&str>, response: String) -> Self {
        let mut draft = Self::new(Role::Tool);
        draft.name = name.map(fitting);
        draft.parts.push(RawPart::ToolCallResponse {
            id: ids::call(id.unwrap_or_default()),
            response,
        });
        draft
    }

    /// Adds a reference to a file that stays with the product.
    pub(crate) fn file(&mut self, id: &str, mime_type: Option<&str>, modality: &str) {
        self.parts.push(RawPart::File {
            mime_type: fitting(mime_type.unwrap_or_default()),
            modality: modality.to_owned(),
            file_id: id.to_owned(),
        });
    }

    /// The files that are referred to.
    pub(crate) fn file_ids(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            RawPart::File { file_id, .. } => Some(file_id.as_str()),
            _ => None,
        })
    }

    /// Adds the data of a `data:` URL, or a reference to another one.
    pub(crate) fn url(&mut self, url: &str, modality: &str) {
        match data_of(url) {
            Some((mime_type, data)) => self.blob(mime_type, modality, data),
            None if url.is_empty() || url.starts_with("data:") => {
                self.text(&format!("[{modality} without valid data]"));
            }
            None => self.parts.push(RawPart::Uri {
                mime_type: String::new(),
                modality: modality.to_owned(),
                uri: url.to_owned(),
            }),
        }
    }

    pub(crate) fn blob(&mut self, mime_type: &str, modality: &str, data: Vec<u8>) {
        self.parts.push(RawPart::Blob {
            mime_type: fitting(mime_type),
            modality: modality.to_owned(),
            bytes: data.len(),
            data: Some(data.into()),
        });
    }

    /// Adds a part that no type fits, as it is in the file.
    pub(crate) fn generic(&mut self, generic_type: &str, value: &Value) {
        self.parts.push(RawPart::Generic {
            generic_type: fitting(generic_type),
            json: value.to_string(),
        });
    }
}

fn data_of(url: &str) -> Option<(&str, Vec<u8>)> {
    let (kind, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mime_type = kind.strip_suffix(";base64")?;
    let mime_type = mime_type
        .split(';')
        .next()
        .filter(|kind| !kind.is_empty())?;
    let data = STANDARD.decode(data.trim()).ok()?;
    (!data.is_empty()).then_some((mime_type, data))
}

/// Cuts a name to the length that is accepted.
pub(crate) fn fitting(name: &str) -> String {
    name.chars().take(Part::MAX_NAME_CHARS).collect()
}
