//! Encoding of bodies and data. A body is an encoded protobuf message, whose type is private to
//! this file. Both are compressed if that makes them smaller; the first byte tells.

use std::{cell::RefCell, io::Read as _};

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status, read::DeflateDecoder};
use prost::Message as _;

use super::rows::Content;
use crate::{
    domain::{
        ChannelData, ChannelValue, ChannelWrite, Checkpoint, CheckpointData, CheckpointId,
        ContentDigest, Piece,
    },
    store::operation_error::{BackendError, ErrorKind, OperationError},
};

const RAW: u8 = 0;
const DEFLATED: u8 = 1;

/// Size below which compression gains nothing.
const MIN_COMPRESSED: usize = 96;

#[derive(Clone, PartialEq, prost::Message)]
struct PieceBody {
    #[prost(bytes = "bytes", optional, tag = "1")]
    inline: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    digest: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DataBody {
    /// Number of a common serialization, or 0.
    #[prost(uint32, tag = "1")]
    known_kind: u32,
    #[prost(string, tag = "2")]
    kind: String,
    /// Data of one piece, the most frequent form.
    #[prost(bytes = "bytes", optional, tag = "3")]
    inline: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    digest: Option<Bytes>,
    #[prost(message, repeated, tag = "5")]
    pieces: Vec<PieceBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChannelBody {
    #[prost(message, repeated, tag = "1")]
    parts: Vec<DataBody>,
    #[prost(bool, tag = "2")]
    is_list: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InlineBody {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ChannelBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VersionBody {
    #[prost(string, tag = "1")]
    channel: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckpointBody {
    #[prost(message, optional, tag = "1")]
    state: Option<DataBody>,
    #[prost(string, tag = "2")]
    metadata: String,
    #[prost(message, repeated, tag = "3")]
    versions: Vec<VersionBody>,
    #[prost(message, repeated, tag = "4")]
    inline: Vec<InlineBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WriteBody {
    #[prost(sint32, tag = "1")]
    index: i32,
    #[prost(string, tag = "2")]
    channel: String,
    #[prost(message, optional, tag = "3")]
    value: Option<ChannelBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WritesBody {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(string, tag = "2")]
    task_path: String,
    #[prost(message, repeated, tag = "3")]
    writes: Vec<WriteBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SegmentBody {
    #[prost(int32, tag = "1")]
    sequence: i32,
    #[prost(int32, tag = "2")]
    items: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PrefixBody {
    #[prost(message, repeated, tag = "1")]
    segments: Vec<SegmentBody>,
}

/// First items of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) sequence: i32,
    pub(super) items: i32,
}

/// Serializations of LangGraph, by number. The numbers are stored.
const KNOWN_KINDS: [&str; 3] = ["", "msgpack", "null"];

fn data_body(data: &CheckpointData) -> DataBody {
    let known = KNOWN_KINDS[1..].iter().position(|kind| *kind == data.kind);
    let known_kind = known.map_or(0, |index| u32::try_from(index + 1).unwrap_or(0));
    let mut body = DataBody {
        known_kind,
        kind: if known_kind == 0 {
            data.kind.clone()
        } else {
            String::new()
        },
        ..DataBody::default()
    };
    let digest = |digest: &ContentDigest| Bytes::copy_from_slice(digest.as_bytes());
    match data.pieces.as_slice() {
        [Piece::Inline(data)] => body.inline = Some(data.clone()),
        [Piece::Stored(stored)] => body.digest = Some(digest(stored)),
        pieces => {
            body.pieces = pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Inline(data) => PieceBody {
                        inline: Some(data.clone()),
                        digest: None,
                    },
                    Piece::Stored(stored) => PieceBody {
                        inline: None,
                        digest: Some(digest(stored)),
                    },
                })
                .collect();
        }
    }
    body
}

fn data_of(body: DataBody) -> Result<CheckpointData, OperationError> {
    let kind = match KNOWN_KINDS.get(body.known_kind as usize) {
        Some(&"") => body.kind,
        Some(kind) => (*kind).to_owned(),
        None => return Err(malformed()),
    };
    let single = PieceBody {
        inline: body.inline,
        digest: body.digest,
    };
    let pieces = [single].into_iter().chain(body.pieces);
    let pieces = pieces.filter_map(|piece| match (piece.inline, piece.digest) {
        (Some(data), _) => Some(Ok(Piece::Inline(data))),
        (None, Some(digest)) => {
            let digest = ContentDigest::parse(&digest).map(Piece::Stored);
            Some(digest.map_err(|_| malformed()))
        }
        (None, None) => None,
    });
    Ok(CheckpointData {
        kind,
        pieces: pieces.collect::<Result<_, _>>()?,
    })
}

fn channel_body(data: &ChannelData) -> ChannelBody {
    ChannelBody {
        parts: data.parts().iter().map(data_body).collect(),
        is_list: matches!(data, ChannelData::List(_)),
    }
}

fn channel_of(body: Option<ChannelBody>) -> Result<ChannelData, OperationError> {
    let body = body.unwrap_or_default();
    let parts = body.parts.into_iter().map(data_of);
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    if body.is_list {
        return Ok(ChannelData::List(parts));
    }
    parts.pop().map(ChannelData::Single).ok_or_else(malformed)
}

/// Encodes a checkpoint without its id and its parent.
pub(super) fn encode_checkpoint(checkpoint: &Checkpoint) -> Vec<u8> {
    let versions = checkpoint.versions.iter();
    let inline = checkpoint.values.iter();
    let inline = inline.filter(|value| value.version.is_empty());
    let body = CheckpointBody {
        state: Some(data_body(&checkpoint.state)),
        metadata: checkpoint.metadata.clone(),
        versions: versions
            .map(|(channel, version)| VersionBody {
                channel: channel.clone(),
                version: version.clone(),
            })
            .collect(),
        inline: inline
            .map(|value| InlineBody {
                channel: value.channel.clone(),
                value: Some(channel_body(&value.data)),
            })
            .collect(),
    };
    compress(&body.encode_to_vec())
}

/// Decodes a checkpoint with the values that are stored in it.
pub(super) fn decode_checkpoint(
    id: CheckpointId,
    parent_id: Option<CheckpointId>,
    body: Vec<u8>,
) -> Result<Checkpoint, OperationError> {
    let body: CheckpointBody = decode(body)?;
    let values = body.inline.into_iter().map(|inline| {
        Ok::<_, OperationError>(ChannelValue {
            channel: inline.channel,
            version: String::new(),
            base: None,
            data: channel_of(inline.value)?,
        })
    });
    let versions = body.versions.into_iter();
    Ok(Checkpoint {
        id,
        parent_id,
        state: data_of(body.state.unwrap_or_default())?,
        metadata: body.metadata,
        versions: versions.map(|each| (each.channel, each.version)).collect(),
        values: values.collect::<Result<_, _>>()?,
    })
}

/// Encodes the writes of one call, all of one task.
pub(super) fn encode_writes(writes: &[ChannelWrite]) -> Vec<u8> {
    let first = writes.first();
    WritesBody {
        task_id: first.map_or_else(String::new, |write| write.task_id.clone()),
        task_path: first.map_or_else(String::new, |write| write.task_path.clone()),
        writes: writes
            .iter()
            .map(|write| WriteBody {
                index: write.index,
                channel: write.channel.clone(),
                value: Some(channel_body(&write.data)),
            })
            .collect(),
    }
    .encode_to_vec()
}

/// Decodes the writes of one call.
pub(super) fn decode_writes(body: Vec<u8>) -> Result<Vec<ChannelWrite>, OperationError> {
    let body: WritesBody = decode(body)?;
    let writes = body.writes.into_iter().map(|write| {
        Ok(ChannelWrite {
            task_id: body.task_id.clone(),
            task_path: body.task_path.clone(),
            index: write.index,
            channel: write.channel,
            data: channel_of(write.value)?,
        })
    });
    writes.collect()
}

/// Encodes a value, or the items of a row of a sequence.
pub(super) fn encode_value(data: &ChannelData) -> Vec<u8> {
    compress(&channel_body(data).encode_to_vec())
}

/// Decodes a value, or the items of a row of a sequence.
pub(super) fn decode_value(body: Vec<u8>) -> Result<ChannelData, OperationError> {
    channel_of(Some(decode(body)?))
}

/// Encodes the segments of a prefix.
pub(super) fn encode_prefix(segments: &[Segment]) -> Option<Vec<u8>> {
    let body = PrefixBody {
        segments: segments
            .iter()
            .map(|segment| SegmentBody {
                sequence: segment.sequence,
                items: segment.items,
            })
            .collect(),
    };
    (!segments.is_empty()).then(|| body.encode_to_vec())
}

/// Decodes the segments of a prefix.
pub(super) fn decode_prefix(prefix: Option<&[u8]>) -> Result<Vec<Segment>, OperationError> {
    let body = PrefixBody::decode(prefix.unwrap_or_default()).map_err(|_| malformed())?;
    let segments = body.segments.into_iter().map(|segment| Segment {
        sequence: segment.sequence,
        items: segment.items,
    });
    Ok(segments.collect())
}

/// Prepares data to be stored.
pub(super) fn content(digest: ContentDigest, data: &[u8]) -> Content {
    Content {
        digest: digest.as_uuid(),
        size: i32::try_from(data.len()).unwrap_or(i32::MAX),
        data: compress(data),
    }
}

fn decode<M: prost::Message + Default>(body: Vec<u8>) -> Result<M, OperationError> {
    let body = Bytes::from(decompress(body)?);
    M::decode(body).map_err(|_| malformed())
}

/// Compresses bytes, if that makes them smaller.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() >= MIN_COMPRESSED {
        // As long as the bytes as they are.
        let mut compressed = Vec::with_capacity(bytes.len());
        compressed.push(DEFLATED);
        let finished = COMPRESS.with_borrow_mut(|compress| {
            compress.reset();
            compress.compress_vec(bytes, &mut compressed, FlushCompress::Finish)
        });
        if matches!(finished, Ok(Status::StreamEnd)) {
            compressed.shrink_to_fit();
            return compressed;
        }
    }
    [&[RAW], bytes].concat()
}

thread_local! {
    // Its tables have several hundred KiB, and a put compresses several short texts.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// Restores bytes that [`compress`] has compressed.
pub(super) fn decompress(mut stored: Vec<u8>) -> Result<Vec<u8>, OperationError> {
    match stored.first() {
        Some(&RAW) => {
            stored.remove(0);
            Ok(stored)
        }
        Some(&DEFLATED) => {
            let mut bytes = Vec::with_capacity(stored.len() * 2);
            let mut decoder = DeflateDecoder::new(&stored[1..]);
            let read = decoder.read_to_end(&mut bytes);
            read.map_err(|_| malformed())?;
            Ok(bytes)
        }
        _ => Err(malformed()),
    }
}

fn malformed() -> OperationError {
    BackendError::new(ErrorKind::Internal, "a stored checkpoint cannot be decoded").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_restored() {
        for bytes in [&b""[..], b"a", &[7; 5000], &[1, 2, 3].repeat(40)] {
            let stored = compress(bytes);
            assert!(stored.len() <= bytes.len() + 1);
            assert_eq!(decompress(stored).unwrap(), bytes);
        }
        assert!(decompress(vec![9]).is_err());
        assert!(decompress(vec![DEFLATED, 255]).is_err());
    }
}
