use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{NewMessage, RetrievedContext, Role};

/// What a request said, in 32 bytes: the same request gives the same digest,
/// another one another. Generated ids and times are no part of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a turn that is to be saved.
    pub fn of_messages(messages: &[NewMessage]) -> Self {
        let mut hash = Fields::new(b"save");
        hash.number(messages.len() as u64);
        for message in messages {
            add_message(&mut hash, message);
        }
        hash.finish()
    }

    /// The digest of a truncation.
    pub fn of_truncation(after_seq: i64) -> Self {
        let mut hash = Fields::new(b"truncate");
        hash.number(after_seq.cast_unsigned());
        hash.finish()
    }

    /// Its bytes, as they are stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

fn add_message(hash: &mut Fields, message: &NewMessage) {
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
}

/// Hashes fields so that no two lists of fields run into each other.
struct Fields(Sha256);

impl Fields {
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
