//! Plans of the rows that a put adds for its values.
//!
//! A list is stored as the items that it adds to the list it continues. See
//! `migrations/postgres/0012_checkpoints.sql`.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    encoding::{Segment, decode_prefix, encode_prefix, encode_value},
    rows::{Heads, NewValueRow, SequenceRow, ValueHead},
};
use crate::{
    domain::{ChannelData, ChannelValue, CheckpointData, ContentDigest},
    store::{StoreError, operation_error::OperationError},
};

/// Upper bound on the sequences that a list consists of. A list that would consist of more is
/// stored as a whole.
const MAX_SEGMENTS: usize = 16;

/// Row to add for a value.
#[derive(Debug)]
pub(super) struct PlannedValue<'a> {
    key: Uuid,
    sequence: Option<SequenceRow>,
    prefix: Vec<Segment>,
    /// Segments whose items are stored again, before those of the value.
    pub(super) repeated: Vec<Segment>,
    data: &'a ChannelData,
}

/// Keys of the versioned values and of the versions that they continue, each once.
pub(super) fn keys_of(values: &[ChannelValue]) -> Vec<Uuid> {
    let versioned = || values.iter().filter(|value| !value.version.is_empty());
    let keys: HashSet<Uuid> = versioned()
        .map(key_of)
        .chain(versioned().filter_map(base_key_of))
        .collect();
    keys.into_iter().collect()
}

/// Keys of the versions that lists continue; `None` if a list continues none.
pub(in crate::store) fn continued_keys(values: &[ChannelValue]) -> Option<Vec<Uuid>> {
    let lists = values
        .iter()
        .filter(|value| !value.version.is_empty() && matches!(value.data, ChannelData::List(_)));
    lists.map(base_key_of).collect()
}

/// Plans the rows of the values whose versions are not stored yet.
pub(super) fn plan<'a>(
    values: &'a [ChannelValue],
    stored: &Heads,
) -> Result<Vec<PlannedValue<'a>>, OperationError> {
    let heads: HashMap<Uuid, &ValueHead> =
        stored.heads.iter().map(|head| (head.key, head)).collect();
    let mut next_sequence = stored.last_sequence + 1;
    let mut planned = Vec::new();
    for value in values.iter().filter(|value| !value.version.is_empty()) {
        if heads.contains_key(&key_of(value)) {
            continue;
        }
        let base = base_key_of(value).and_then(|key| heads.get(&key).copied());
        planned.push(plan_value(value, base, &mut next_sequence)?);
    }
    Ok(planned)
}

fn key_of(value: &ChannelValue) -> Uuid {
    ContentDigest::of_version(&value.channel, &value.version).as_uuid()
}

fn base_key_of(value: &ChannelValue) -> Option<Uuid> {
    let base = value.base.as_ref()?;
    Some(ContentDigest::of_version(&value.channel, &base.version).as_uuid())
}

fn plan_value<'a>(
    value: &'a ChannelValue,
    base: Option<&ValueHead>,
    next_sequence: &mut i32,
) -> Result<PlannedValue<'a>, OperationError> {
    let row = |sequence, prefix| PlannedValue {
        key: key_of(value),
        sequence,
        prefix,
        repeated: Vec::new(),
        data: &value.data,
    };
    let ChannelData::List(items) = &value.data else {
        return Ok(row(None, Vec::new()));
    };
    let base_items = value.base.as_ref().map_or(0, |base| base.items);
    let base_items = i32::try_from(base_items).map_err(|_| StoreError::BaseVersionMissing)?;
    if value.base.is_some() && base.is_none() {
        return Err(StoreError::BaseVersionMissing.into());
    }
    let mut segments = match base {
        Some(base) if base.sequence.is_some() => {
            segments_of(base.sequence, base.prefix.as_deref())?
        }
        // An empty list has no sequence.
        _ => Vec::new(),
    };
    let total: i32 = segments.iter().map(|segment| segment.items).sum();
    if base_items > total {
        return Err(StoreError::BaseVersionMissing.into());
    }
    let is_end = base_items == total && base.is_some_and(|base| !base.is_continued);
    truncate(&mut segments, base_items);
    let added = i32::try_from(items.len()).unwrap_or(i32::MAX);
    // A row continues a sequence, unless another version already does. One without items of its
    // own ends within a sequence.
    if let Some(last) = segments.last().copied()
        && (added == 0 || is_end)
    {
        segments.pop();
        let sequence = SequenceRow {
            sequence: last.sequence,
            first: last.items,
            last: last.items.saturating_add(added),
        };
        return Ok(row(Some(sequence), segments));
    }
    if added == 0 {
        return Ok(row(None, Vec::new()));
    }
    let mut sequence = SequenceRow {
        sequence: *next_sequence,
        first: 0,
        last: added,
    };
    *next_sequence += 1;
    if segments.len() < MAX_SEGMENTS {
        return Ok(row(Some(sequence), segments));
    }
    sequence.last = base_items.saturating_add(added);
    Ok(PlannedValue {
        repeated: segments,
        ..row(Some(sequence), Vec::new())
    })
}

impl PlannedValue<'_> {
    /// Encodes the row. `repeated` are the items of [`Self::repeated`].
    pub(super) fn encode(self, mut repeated: Vec<CheckpointData>) -> NewValueRow {
        let body = match self.data {
            ChannelData::List(items) if !repeated.is_empty() => {
                repeated.extend_from_slice(items);
                encode_value(&ChannelData::List(repeated))
            }
            data => encode_value(data),
        };
        NewValueRow {
            key: self.key,
            sequence: self.sequence,
            prefix: encode_prefix(&self.prefix),
            body,
        }
    }
}

/// Segments that a stored list consists of. Fails if the value is no list.
pub(super) fn segments_of(
    own: Option<SequenceRow>,
    prefix: Option<&[u8]>,
) -> Result<Vec<Segment>, OperationError> {
    let own = own.ok_or(StoreError::BaseVersionMissing)?;
    let mut segments = decode_prefix(prefix)?;
    segments.push(Segment {
        sequence: own.sequence,
        items: own.last,
    });
    Ok(segments)
}

/// Keeps the first `items` of a list.
fn truncate(segments: &mut Vec<Segment>, items: i32) {
    let mut left = items;
    segments.retain_mut(|segment| {
        segment.items = segment.items.min(left);
        left -= segment.items;
        segment.items > 0
    });
}
