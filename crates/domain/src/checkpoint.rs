use std::{fmt, mem};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{CheckpointId, ConversationId, InvalidValue, MessageId, text::reject_nul};

/// Upper bound on the bytes of a piece that is stored where it is used. Larger pieces are stored
/// once per thread.
pub const MAX_INLINE_BYTES: usize = 128;
/// Upper bound on the bytes of a piece.
pub const MAX_PIECE_BYTES: usize = 1 << 20;
/// Upper bound on the pieces of a value.
pub const MAX_PIECES: usize = 1024;
/// Upper bound on the items of a list.
pub const MAX_LIST_ITEMS: usize = 20_000;
/// Upper bound on the channels of a checkpoint.
pub const MAX_CHANNELS: usize = 1000;
/// Upper bound on the writes of one call.
pub const MAX_WRITES: usize = 10_000;
/// Upper bound on the messages that are saved with a checkpoint.
pub const MAX_CHECKPOINT_MESSAGES: usize = 1000;
/// Upper bound on the bytes of the state of a checkpoint, and of its metadata.
pub const MAX_STATE_BYTES: usize = 1 << 20;

/// Namespace of checkpoints in a thread; empty for the graph itself.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CheckpointNamespace(String);

impl CheckpointNamespace {
    /// Upper bound on the length in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Validates a namespace.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the text has more than [`Self::MAX_BYTES`] bytes, or contains
    /// U+0000.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidValue> {
        let text = text.into();
        if text.len() > Self::MAX_BYTES {
            let max = Self::MAX_BYTES;
            return Err(InvalidValue::new(format!("must have at most {max} bytes")));
        }
        reject_nul(&text)?;
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CheckpointNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckpointNamespace(..)")
    }
}

/// Identity of data: the first 16 bytes of its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest([u8; 16]);

impl ContentDigest {
    /// Computes the digest of data.
    pub fn of(data: &[u8]) -> Self {
        Self::of_fields(&[data])
    }

    /// Computes the digest of the version of a channel, by which its value is found.
    pub fn of_version(channel: &str, version: &str) -> Self {
        let length = (channel.len() as u64).to_be_bytes();
        Self::of_fields(&[&length, channel.as_bytes(), version.as_bytes()])
    }

    /// Computes the digest of the id of a run.
    pub fn of_run(run: &str) -> Self {
        Self::of_fields(&[b"run", run.as_bytes()])
    }

    fn of_fields(fields: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for field in fields {
            hash.update(field);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        Self(digest)
    }

    /// Parses a digest of 16 bytes.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if there are fewer or more bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidValue> {
        let bytes = bytes.try_into();
        bytes
            .map(Self)
            .map_err(|_| InvalidValue::new("must have 16 bytes"))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as a UUID, in which form they are stored.
    pub fn as_uuid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    /// The digest that was stored as a UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.into_bytes())
    }
}

/// Derives the id of a message of a checkpoint from its conversation and its key in the graph.
pub fn checkpoint_message_id(conversation: ConversationId, key: &str) -> MessageId {
    let conversation = conversation.as_uuid();
    let digest = ContentDigest::of_fields(&[conversation.as_bytes(), key.as_bytes()]);
    let id = uuid::Builder::from_custom_bytes(digest.0).into_uuid();
    MessageId::from_uuid(id)
}

/// Piece of a value.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Small data.
    Inline(Bytes),
    /// Data that the thread stores once.
    Stored(ContentDigest),
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(data) => write!(f, "Inline({} bytes)", data.len()),
            Self::Stored(digest) => write!(f, "Stored({})", digest.as_uuid()),
        }
    }
}

/// Serialized value.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CheckpointData {
    /// Name of the serialization.
    pub kind: String,
    /// Pieces, one after the other.
    pub pieces: Vec<Piece>,
}

impl fmt::Debug for CheckpointData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointData")
            .field("pieces.len", &self.pieces.len())
            .finish_non_exhaustive()
    }
}

impl CheckpointData {
    /// Digests of the pieces that are stored once.
    pub fn digests(&self) -> impl Iterator<Item = ContentDigest> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Inline(_) => None,
            Piece::Stored(digest) => Some(*digest),
        })
    }

    /// Approximate bytes that the value takes without its stored data.
    pub fn inline_bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Inline(data) => data.len() + 8,
            Piece::Stored(_) => 24,
        });
        self.kind.len() + 8 + pieces.sum::<usize>()
    }
}

/// Value as a whole or as a list of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelData {
    /// Value as a whole.
    Single(CheckpointData),
    /// Items of a list.
    List(Vec<CheckpointData>),
}

impl ChannelData {
    /// Values that the data consists of.
    pub fn parts(&self) -> &[CheckpointData] {
        match self {
            Self::Single(data) => std::slice::from_ref(data),
            Self::List(items) => items,
        }
    }
}

/// Items of an earlier version that begin a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListBase {
    /// Version of the same channel.
    pub version: String,
    /// Number of its items.
    pub items: u32,
}

/// Value of a channel in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelValue {
    /// Name of the channel.
    pub channel: String,
    /// Version; empty for a value that belongs to the checkpoint alone.
    pub version: String,
    /// Base of a list.
    pub base: Option<ListBase>,
    /// Value; of a list, the items after those of the base.
    pub data: ChannelData,
}

/// Write of a task to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelWrite {
    /// Task.
    pub task_id: String,
    /// Position of the task in the graph.
    pub task_path: String,
    /// Index among the writes of the task; negative for one that later ones replace.
    pub index: i32,
    /// Name of the channel.
    pub channel: String,
    /// Written value.
    pub data: ChannelData,
}

/// Checkpoint without its namespace and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Id.
    pub id: CheckpointId,
    /// Id of the checkpoint that this one continues; `None` for the first one.
    pub parent_id: Option<CheckpointId>,
    /// What the checkpoint contains besides values and versions.
    pub state: CheckpointData,
    /// JSON object.
    pub metadata: String,
    /// Channels and their versions.
    pub versions: Vec<(String, String)>,
    /// Values: the new ones, or all.
    pub values: Vec<ChannelValue>,
}

/// Data of the pieces of a request.
#[derive(Clone, Default)]
pub struct Contents {
    /// Data that the request has, by digest.
    pub new: Vec<(ContentDigest, Bytes)>,
    /// Digests of data that was stored before.
    pub referenced: Vec<ContentDigest>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("new.len", &self.new.len())
            .field("referenced.len", &self.referenced.len())
            .finish()
    }
}

impl Contents {
    /// Adds a piece, and returns how a value refers to it.
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] if the piece has more than [`MAX_PIECE_BYTES`].
    pub fn add(&mut self, data: Bytes) -> Result<Piece, InvalidValue> {
        if data.len() > MAX_PIECE_BYTES {
            return Err(InvalidValue::new(format!(
                "must have at most {MAX_PIECE_BYTES} bytes: split the data into pieces"
            )));
        }
        if data.len() <= MAX_INLINE_BYTES {
            return Ok(Piece::Inline(data));
        }
        let digest = ContentDigest::of(&data);
        self.new.push((digest, data));
        Ok(Piece::Stored(digest))
    }

    /// Adds a reference to data that was stored before.
    pub fn refer(&mut self, digest: ContentDigest) -> Piece {
        self.referenced.push(digest);
        Piece::Stored(digest)
    }

    /// Removes data and references that occur more than once, and references to new data.
    pub fn deduplicate(&mut self) {
        self.new.sort_by_key(|(digest, _)| *digest);
        self.new.dedup_by_key(|(digest, _)| *digest);
        let mut referenced = mem::take(&mut self.referenced);
        referenced.sort_unstable();
        referenced.dedup();
        let is_new = |digest: &ContentDigest| {
            let found = self.new.binary_search_by_key(digest, |(new, _)| *new);
            found.is_ok()
        };
        referenced.retain(|digest| !is_new(digest));
        self.referenced = referenced;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_data_is_kept_once() {
        let mut contents = Contents::default();
        let large = Bytes::from(vec![7; MAX_INLINE_BYTES + 1]);
        let first = contents.add(large.clone()).unwrap();
        assert!(contents.add(large.clone()).unwrap() == first);
        contents.refer(ContentDigest::of(&large));
        let other = ContentDigest::of(b"other");
        contents.refer(other);
        contents.refer(other);
        let small = Bytes::from_static(b"small");
        assert!(contents.add(small.clone()).unwrap() == Piece::Inline(small));
        contents.deduplicate();
        assert_eq!(contents.new.len(), 1);
        assert_eq!(contents.referenced, [other]);
        let huge = Bytes::from(vec![0; MAX_PIECE_BYTES + 1]);
        assert!(contents.add(huge).is_err());
    }

    #[test]
    fn the_key_of_a_version_depends_on_where_the_channel_ends() {
        let key = ContentDigest::of_version;
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("a", "1"), key("a", "1"));
    }
}
