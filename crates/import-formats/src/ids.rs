//! Ids that are derived from those of a file, so that a repeated import finds what is there.

use std::fmt::Write as _;

use domain::{ConversationId, Part, UserId};
use serde_json::Value;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use uuid::{Builder, Uuid, uuid};

use super::Format;

/// Namespace of all derived ids.
const NAMESPACE: Uuid = uuid!("7d1c9d0e-2f0b-5f36-9c53-6f7e0a4b1d92");

/// Id of a conversation: a UUID of version 5 of format, user and the id or the content in the file.
pub(crate) fn conversation(format: Format, user: &UserId, key: &str) -> Uuid {
    derive(NAMESPACE, &[format.name(), user.as_str(), key])
}

/// Id of a message, or of a branch, of a conversation.
pub(crate) fn within(conversation: Uuid, kind: &str, key: &str) -> Uuid {
    derive(conversation, &[kind, key])
}

/// Id of the branch that begins with a message of a node.
pub(crate) fn branch(conversation: Uuid, node: &str, message: usize) -> ConversationId {
    let id = match message {
        0 => within(conversation, "branch", node),
        _ => within(conversation, "branch", &format!("{message}/{node}")),
    };
    ConversationId::from_uuid(id)
}

/// Identifies a conversation by its content, independently of white space and the order of members.
pub(crate) fn content_key(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string().as_bytes());
    let (mut key, digest) = (String::new(), <[u8; 32]>::from(digest));
    for byte in digest {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// Id of a tool call. One that is too long is replaced by a derived one.
pub(crate) fn call(id: &str) -> String {
    let id = id.trim();
    if id.chars().count() > Part::MAX_NAME_CHARS {
        derive(NAMESPACE, &["call", id]).to_string()
    } else {
        id.to_owned()
    }
}

fn derive(namespace: Uuid, names: &[&str]) -> Uuid {
    let mut hash = Sha1::new();
    hash.update(namespace.as_bytes());
    for (index, name) in names.iter().enumerate() {
        // No text of a file contains U+0000.
        if index > 0 {
            hash.update([0]);
        }
        hash.update(name.as_bytes());
    }
    let hash: [u8; 20] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_format_user_and_key() {
        let user = |name: &str| UserId::parse(name).unwrap();
        let id = conversation(Format::ChatGpt, &user("ana"), "c1");
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(id, conversation(Format::ChatGpt, &user("ana"), "c1"));
        for other in [
            conversation(Format::Claude, &user("ana"), "c1"),
            conversation(Format::ChatGpt, &user("bo"), "c1"),
            conversation(Format::ChatGpt, &user("ana"), "c2"),
        ] {
            assert_ne!(id, other);
        }
    }
}
