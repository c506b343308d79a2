use std::collections::HashMap;

use bytes::Bytes;

use crate::{
    domain::{ChannelData, CheckpointData, ContentDigest, Piece},
    proto::{self, checkpoint_piece, checkpoint_value, checkpoint_write},
    store::{CheckpointPage, CheckpointRecord},
};

/// Renders checkpoints with the data that was read. Other data has digests.
pub(crate) fn checkpoint_page(page: CheckpointPage) -> Vec<proto::GetCheckpointResponse> {
    let contents: HashMap<ContentDigest, Bytes> = page.contents.into_iter().collect();
    let render = Renderer { contents };
    let records = page.records.into_iter();
    records.map(|record| render.record(record)).collect()
}

/// Renderer of values, whose data may occur in several.
struct Renderer {
    contents: HashMap<ContentDigest, Bytes>,
}

impl Renderer {
    fn record(&self, record: CheckpointRecord) -> proto::GetCheckpointResponse {
        let CheckpointRecord {
            namespace,
            checkpoint,
            writes,
        } = record;
        let values = checkpoint.values.into_iter().map(|value| {
            let rendered = match value.data {
                ChannelData::Single(single) => checkpoint_value::Value::Single(self.data(single)),
                ChannelData::List(items) => checkpoint_value::Value::List(self.list(items)),
            };
            proto::CheckpointValue {
                channel: value.channel,
                version: value.version,
                value: Some(rendered),
            }
        });
        let versions = checkpoint.versions.into_iter();
        let rendered = proto::Checkpoint {
            namespace,
            checkpoint_id: checkpoint.id.to_string(),
            parent_checkpoint_id: checkpoint
                .parent_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            values: values.collect(),
            state: Some(self.data(checkpoint.state)),
            metadata_json: checkpoint.metadata,
            channel_versions: versions
                .map(|(channel, version)| proto::CheckpointVersion { channel, version })
                .collect(),
        };
        let writes = writes.into_iter().map(|write| {
            let value = match write.data {
                ChannelData::Single(single) => checkpoint_write::Value::Single(self.data(single)),
                ChannelData::List(items) => checkpoint_write::Value::List(self.list(items)),
            };
            proto::CheckpointWrite {
                task_id: write.task_id,
                task_path: write.task_path,
                index: write.index,
                channel: write.channel,
                value: Some(value),
            }
        });
        proto::GetCheckpointResponse {
            checkpoint: Some(rendered),
            writes: writes.collect(),
        }
    }

    fn list(&self, items: Vec<CheckpointData>) -> proto::CheckpointList {
        proto::CheckpointList {
            base_version: String::new(),
            base_items: 0,
            items: items.into_iter().map(|item| self.data(item)).collect(),
        }
    }

    fn data(&self, data: CheckpointData) -> proto::CheckpointData {
        let pieces = data.pieces.into_iter().map(|piece| {
            let piece = match piece {
                Piece::Inline(data) => checkpoint_piece::Piece::Data(data),
                Piece::Stored(digest) => self.stored(digest),
            };
            proto::CheckpointPiece { piece: Some(piece) }
        });
        proto::CheckpointData {
            r#type: data.kind,
            pieces: pieces.collect(),
        }
    }

    /// Renders data that the thread stores once: by itself if it was read, else by its digest.
    fn stored(&self, digest: ContentDigest) -> checkpoint_piece::Piece {
        if let Some(data) = self.contents.get(&digest) {
            return checkpoint_piece::Piece::Data(data.clone());
        }
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        checkpoint_piece::Piece::Digest(digest)
    }
}
