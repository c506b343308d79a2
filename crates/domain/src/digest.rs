use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{NewMessage, RetrievedContext, Role};

/// SHA-256 digest of a request's content, which identifies a retry. Generated ids and times are
/// not part of the content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Computes the digest of the messages of a save.
    pub fn of_messages(messages: &[NewMessage]) -> Self {
        let mut hash = FieldHasher::new(b"save");
        hash.number(messages.len() as u64);
        for message in messages {
            add_message(&mut hash, message);
        }
        hash.finish()
    }

    /// Computes the digest of a truncation.
    pub fn of_truncation(after_seq: i64) -> Self {
        let mut hash = FieldHasher::new(b"truncate");
        hash.number(after_seq.cast_unsigned());
        hash.finish()
    }

    /// Computes the digest of a compaction.
    pub fn of_compaction(upto_seq: i64, summary: &str) -> Self {
        let mut hash = FieldHasher::new(b"compact");
        hash.number(upto_seq.cast_unsigned());
        hash.bytes(summary.as_bytes());
        hash.finish()
    }

    /// Bytes of the digest, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

fn add_message(hash: &mut FieldHasher, message: &NewMessage) {
    hash.optional(message.id_chosen.then(|| message.id.as_uuid().into_bytes()));
    hash.bytes(Role::as_str(message.role).as_bytes());
    hash.bytes(message.content.as_str().as_bytes());
    hash.optional(message.tokens_used.map(i32::to_be_bytes));
    hash.optional(message.latency_ms.map(i32::to_be_bytes));
    hash.optional(
        message
            .created_at
            .map(|at| at.timestamp_micros().to_be_bytes()),
    );
    hash.optional(message.metadata.as_ref().map(super::Metadata::to_json));
    hash.number(message.contexts.len() as u64);
    for RetrievedContext {
        doc_id,
        content,
        score,
        metadata,
    } in &message.contexts
    {
        hash.bytes(doc_id.as_bytes());
        hash.bytes(content.as_str().as_bytes());
        hash.optional(score.map(|score| score.to_bits().to_be_bytes()));
        hash.optional(metadata.as_ref().map(super::Metadata::to_json));
    }
    add_parts(hash, message);
}

/// Adds what a plain message does not have. The digest of a plain message is thereby the one that
/// versions without parts have stored.
fn add_parts(hash: &mut FieldHasher, message: &NewMessage) {
    let NewMessage {
        name,
        parts,
        token_count,
        pinned,
        ..
    } = message;
    if name.is_none() && parts.is_empty() && token_count.is_none() && !pinned {
        return;
    }
    hash.bytes(b"parts");
    hash.optional(name.as_ref().map(super::AuthorName::as_str));
    hash.optional(token_count.map(i32::to_be_bytes));
    hash.number(u64::from(*pinned));
    hash.bytes(&serde_json::to_vec(parts).unwrap_or_default());
}

/// Hasher of fields, each with its length, so that different lists of fields never form the
/// same input.
struct FieldHasher(Sha256);

impl FieldHasher {
    fn new(kind: &[u8]) -> Self {
        let mut fields = Self(Sha256::new());
        fields.bytes(kind);
        fields
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn optional(&mut self, bytes: Option<impl AsRef<[u8]>>) {
        match bytes {
            Some(bytes) => {
                self.0.update([1]);
                self.bytes(bytes.as_ref());
            }
            None => self.0.update([0]),
        }
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}
