use std::collections::HashSet;

use crate::{
    domain::{
        ChannelData, ChannelValue, Checkpoint, CheckpointData, CheckpointId, ContentDigest,
        Contents, FieldError, InField as _, InvalidValue, ListBase, MAX_CHANNELS, MAX_LIST_ITEMS,
        MAX_PIECES, MAX_STATE_BYTES, Piece,
    },
    proto::{self, checkpoint_piece, checkpoint_value, checkpoint_write},
};

/// Upper bound on the characters of names: of channels, versions, tasks and runs.
const MAX_NAME_CHARS: usize = 255;
/// Upper bound on the characters of the name of a serialization.
const MAX_TYPE_CHARS: usize = 64;
/// Upper bound on the bytes of a value that is stored in its checkpoint.
const MAX_SMALL_BYTES: usize = 4 << 10;
/// Upper bound on the bytes of metadata and filters.
const MAX_METADATA_BYTES: usize = 64 << 10;

/// Parses a checkpoint with its new values.
pub(super) fn checkpoint(
    given: proto::Checkpoint,
    contents: &mut Contents,
) -> Result<Checkpoint, FieldError> {
    let id = CheckpointId::parse(&given.checkpoint_id).in_field("checkpoint_id")?;
    let parent = &given.parent_checkpoint_id;
    let parent_id = (!parent.is_empty())
        .then(|| CheckpointId::parse(parent).in_field("parent_checkpoint_id"))
        .transpose()?;
    let state =
        inline_data(given.state.unwrap_or_default()).map_err(|error| error.below("state"))?;
    if given.metadata_json.is_empty() {
        let reason = InvalidValue::new("is required");
        return Err(FieldError::new("metadata_json", reason));
    }
    object(&given.metadata_json).in_field("metadata_json")?;
    if given.channel_versions.len() > MAX_CHANNELS {
        return Err(too_many_at("channel_versions", MAX_CHANNELS));
    }
    let versions = given.channel_versions.into_iter().enumerate();
    let versions = versions.map(|(index, version)| {
        let below = |field: &str| format!("channel_versions[{index}].{field}");
        let channel = name(version.channel).in_field(&below("channel"))?;
        let version = name(version.version).in_field(&below("version"))?;
        Ok((channel, version))
    });
    let versions = versions.collect::<Result<Vec<_>, FieldError>>()?;
    if given.values.len() > MAX_CHANNELS {
        return Err(too_many_at("values", MAX_CHANNELS));
    }
    let mut channels = HashSet::new();
    let mut values = Vec::with_capacity(given.values.len());
    for (index, value) in given.values.into_iter().enumerate() {
        let value = channel_value(value, contents)
            .map_err(|error| error.below(format!("values[{index}]")))?;
        if !channels.insert(value.channel.clone()) {
            let reason = InvalidValue::new("must not be that of another value");
            return Err(FieldError::new(format!("values[{index}].channel"), reason));
        }
        values.push(value);
    }
    Ok(Checkpoint {
        id,
        parent_id,
        state,
        metadata: given.metadata_json,
        versions,
        values,
    })
}

fn channel_value(
    value: proto::CheckpointValue,
    contents: &mut Contents,
) -> Result<ChannelValue, FieldError> {
    let channel = name(value.channel).in_field("channel")?;
    let version = at_most(value.version, MAX_NAME_CHARS).in_field("version")?;
    let (base, data) = match value.value {
        Some(checkpoint_value::Value::Single(single)) => {
            let single = data(single, contents).map_err(|error| error.below("single"))?;
            (None, ChannelData::Single(single))
        }
        Some(checkpoint_value::Value::List(given)) => {
            let base = at_most(given.base_version.clone(), MAX_NAME_CHARS);
            let base = base.in_field("list.base_version")?;
            let base = (!base.is_empty()).then_some(ListBase {
                version: base,
                items: given.base_items,
            });
            let items = list(given, contents).map_err(|error| error.below("list"))?;
            (base, ChannelData::List(items))
        }
        None => {
            let reason = InvalidValue::new("is required");
            return Err(FieldError::new("single", reason));
        }
    };
    if version.is_empty() {
        let bytes: usize = data.parts().iter().map(CheckpointData::inline_bytes).sum();
        if base.is_some() || bytes > MAX_SMALL_BYTES {
            let reason = InvalidValue::new("is required for a list with a base or a large value");
            return Err(FieldError::new("version", reason));
        }
    }
    Ok(ChannelValue {
        channel,
        version,
        base,
        data,
    })
}

/// Parses the value of a write.
pub(super) fn write_data(
    value: Option<checkpoint_write::Value>,
    contents: &mut Contents,
) -> Result<ChannelData, FieldError> {
    match value {
        Some(checkpoint_write::Value::Single(single)) => {
            let single = data(single, contents).map_err(|error| error.below("single"))?;
            Ok(ChannelData::Single(single))
        }
        Some(checkpoint_write::Value::List(given)) if given.base_version.is_empty() => {
            let items = list(given, contents).map_err(|error| error.below("list"))?;
            Ok(ChannelData::List(items))
        }
        Some(checkpoint_write::Value::List(_)) => {
            let reason = InvalidValue::new("must be empty in a write");
            Err(FieldError::new("list.base_version", reason))
        }
        None => {
            let reason = InvalidValue::new("is required");
            Err(FieldError::new("single", reason))
        }
    }
}

fn list(
    list: proto::CheckpointList,
    contents: &mut Contents,
) -> Result<Vec<CheckpointData>, FieldError> {
    let total = list.items.len().saturating_add(list.base_items as usize);
    if total > MAX_LIST_ITEMS {
        return Err(too_many_at("items", MAX_LIST_ITEMS));
    }
    let items = list.items.into_iter().enumerate();
    let items = items.map(|(index, item)| {
        data(item, contents).map_err(|error| error.below(format!("items[{index}]")))
    });
    items.collect()
}

fn data(
    data: proto::CheckpointData,
    contents: &mut Contents,
) -> Result<CheckpointData, FieldError> {
    let kind = at_most(data.r#type, MAX_TYPE_CHARS).in_field("type")?;
    if data.pieces.len() > MAX_PIECES {
        return Err(too_many_at("pieces", MAX_PIECES));
    }
    let pieces = data.pieces.into_iter().enumerate();
    let pieces = pieces.map(|(index, piece)| {
        let piece = match piece.piece {
            Some(checkpoint_piece::Piece::Data(data)) => contents.add(data),
            Some(checkpoint_piece::Piece::Digest(digest)) => {
                ContentDigest::parse(&digest).map(|digest| contents.refer(digest))
            }
            None => Err(InvalidValue::new("must have data or a digest")),
        };
        piece.in_field(&format!("pieces[{index}]"))
    });
    Ok(CheckpointData {
        kind,
        pieces: pieces.collect::<Result<_, _>>()?,
    })
}

/// Parses data that is stored in its checkpoint, whatever its size.
fn inline_data(data: proto::CheckpointData) -> Result<CheckpointData, FieldError> {
    let kind = at_most(data.r#type, MAX_TYPE_CHARS).in_field("type")?;
    let pieces = data.pieces.into_iter().map(|piece| match piece.piece {
        Some(checkpoint_piece::Piece::Data(data)) => Ok(Piece::Inline(data)),
        _ => Err(FieldError::new(
            "pieces",
            InvalidValue::new("must have data"),
        )),
    });
    let pieces = pieces.collect::<Result<_, _>>()?;
    let data = CheckpointData { kind, pieces };
    if data.inline_bytes() > MAX_STATE_BYTES {
        let reason = InvalidValue::new(format!("must have at most {MAX_STATE_BYTES} bytes"));
        return Err(FieldError::new("pieces", reason));
    }
    Ok(data)
}

/// Parses a name, which is not empty.
pub(super) fn name(text: String) -> Result<String, InvalidValue> {
    if text.is_empty() {
        return Err(InvalidValue::new("is required"));
    }
    at_most(text, MAX_NAME_CHARS)
}

/// Validates a text of at most `max` characters.
pub(super) fn at_most(text: String, max: usize) -> Result<String, InvalidValue> {
    if text.len() > max && text.chars().count() > max {
        return Err(InvalidValue::new(format!(
            "must have at most {max} characters"
        )));
    }
    if text.contains('\0') {
        return Err(InvalidValue::new("must not contain U+0000"));
    }
    Ok(text)
}

/// Error of a list with more than `max` elements.
pub(super) fn too_many_at(path: &str, max: usize) -> FieldError {
    FieldError::new(
        path,
        InvalidValue::new(format!("must have at most {max} elements")),
    )
}

/// Parses an object in JSON.
pub(super) fn object(
    json: &str,
) -> Result<serde_json::Map<String, serde_json::Value>, InvalidValue> {
    if json.len() > MAX_METADATA_BYTES {
        return Err(InvalidValue::new(format!(
            "must have at most {MAX_METADATA_BYTES} bytes"
        )));
    }
    serde_json::from_str(json).map_err(|_| InvalidValue::new("must be an object in JSON"))
}
