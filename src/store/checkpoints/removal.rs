//! What a removal of checkpoints deletes: them, and what no other checkpoint of the thread needs.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    encoding::{decode_checkpoint, decode_value, decode_writes},
    rows::{CheckpointRow, CheckpointRows},
    values::segments_of,
};
use crate::{
    domain::{ChannelData, Checkpoint, CheckpointData, CheckpointId, ContentDigest},
    store::operation_error::OperationError,
};

/// Number of rows that are read together.
const BATCH: u32 = 500;

/// Member of the metadata whose members are the channels that store only what is written to them.
const DELTA_CHANNELS: &str = "counters_since_delta_snapshot";

/// Which checkpoints of a thread a removal deletes.
#[derive(Debug)]
pub(in crate::store) enum Selection {
    /// All but the latest of each namespace, and the ancestors that it needs.
    AllButLatest,
    /// Those of runs.
    OfRuns(Vec<Uuid>),
}

impl Selection {
    pub(in crate::store) fn of_runs(runs: &[ContentDigest]) -> Self {
        Self::OfRuns(runs.iter().map(|run| run.as_uuid()).collect())
    }
}

/// Ids of the checkpoints of a namespace that a removal deletes.
pub(in crate::store) async fn selected<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    selection: &Selection,
) -> Result<Vec<Uuid>, OperationError> {
    match selection {
        Selection::AllButLatest => superseded(rows, namespace).await,
        Selection::OfRuns(runs) => rows.checkpoints_of_runs(namespace, runs).await,
    }
}

/// Ids of the checkpoints of a namespace that the latest one does not need.
async fn superseded<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
) -> Result<Vec<Uuid>, OperationError> {
    let kept = needed(rows, namespace).await?;
    let mut removed = Vec::new();
    let mut below = None;
    loop {
        let batch = rows.checkpoints(namespace, below, BATCH).await?;
        let Some(last) = batch.last() else {
            return Ok(removed);
        };
        below = Some(last.key.id);
        let ids = batch.iter().map(|row| row.key.id);
        removed.extend(ids.filter(|id| !kept.contains(id)));
    }
}

/// Ids of the latest checkpoint of a namespace, and of the ancestors that its channels need which
/// store only what is written to them: up to the one that has their value.
async fn needed<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
) -> Result<HashSet<Uuid>, OperationError> {
    let mut kept = HashSet::new();
    let Some(latest) = rows.checkpoint(namespace, None).await? else {
        return Ok(kept);
    };
    kept.insert(latest.key.id);
    let mut parent = latest.parent_id;
    let mut missing = delta_channels(&decoded(latest)?);
    while let Some(id) = parent
        && !missing.is_empty()
        // Ancestors that form a circle are examined once.
        && kept.insert(id)
        && let Some(row) = rows.checkpoint(namespace, Some(id)).await?
    {
        parent = row.parent_id;
        let ancestor = decoded(row)?;
        for value in &ancestor.values {
            missing.remove(&value.channel);
        }
        let keys: HashMap<Uuid, &String> = ancestor
            .versions
            .iter()
            .filter(|(channel, _)| missing.contains(channel))
            .map(|(channel, version)| {
                (
                    ContentDigest::of_version(channel, version).as_uuid(),
                    channel,
                )
            })
            .collect();
        let wanted: Vec<Uuid> = keys.keys().copied().collect();
        let stored = if wanted.is_empty() {
            Vec::new()
        } else {
            rows.heads(namespace, &wanted).await?.heads
        };
        for row in stored {
            if let Some(channel) = keys.get(&row.key) {
                missing.remove(*channel);
            }
        }
    }
    Ok(kept)
}

fn delta_channels(checkpoint: &Checkpoint) -> HashSet<String> {
    let metadata: serde_json::Value =
        serde_json::from_str(&checkpoint.metadata).unwrap_or_default();
    let counters = metadata.get(DELTA_CHANNELS);
    let counters = counters.and_then(serde_json::Value::as_object);
    counters.map_or_else(HashSet::new, |counters| counters.keys().cloned().collect())
}

fn decoded(row: CheckpointRow) -> Result<Checkpoint, OperationError> {
    decode_checkpoint(CheckpointId::from_uuid(row.key.id), None, row.body)
}

/// Keys of the values of a namespace that no checkpoint needs. Adds the digests of the data that the
/// others, the checkpoints and the writes refer to.
pub(in crate::store) async fn unneeded_values<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    kept: &mut HashSet<Uuid>,
) -> Result<Vec<Uuid>, OperationError> {
    let mut keys = HashSet::new();
    let mut below = None;
    loop {
        let batch = rows.checkpoints(namespace, below, BATCH).await?;
        let Some(last) = batch.last() else { break };
        below = Some(last.key.id);
        for row in batch {
            let checkpoint = decoded(row)?;
            for value in &checkpoint.values {
                add(kept, value.data.parts());
            }
            for (channel, version) in &checkpoint.versions {
                keys.insert(ContentDigest::of_version(channel, version).as_uuid());
            }
        }
    }
    let needed = needed_items(rows, namespace, &keys).await?;
    let mut unneeded = Vec::new();
    let mut after = None;
    loop {
        let batch = rows.values_after(namespace, after, BATCH).await?;
        let Some(last) = batch.last() else { break };
        after = Some(last.key);
        for row in batch {
            let is_part = row.sequence.is_some_and(|own| {
                let items = needed.get(&own.sequence);
                own.first < own.last && items.is_some_and(|items| own.first < *items)
            });
            if keys.contains(&row.key) || is_part {
                add(kept, decode_value(row.body)?.parts());
            } else {
                unneeded.push(row.key);
            }
        }
    }
    let mut after = None;
    loop {
        let batch = rows.writes_after(namespace, after, BATCH).await?;
        let Some((checkpoint, digest, _)) = batch.last() else {
            break;
        };
        after = Some((*checkpoint, *digest));
        for (_, _, body) in batch {
            for write in decode_writes(body)? {
                add(kept, ChannelData::parts(&write.data));
            }
        }
    }
    Ok(unneeded)
}

/// Number of first items that the values with these keys need of each sequence.
async fn needed_items<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    keys: &HashSet<Uuid>,
) -> Result<HashMap<i32, i32>, OperationError> {
    let keys: Vec<Uuid> = keys.iter().copied().collect();
    let mut needed: HashMap<i32, i32> = HashMap::new();
    for batch in keys.chunks(BATCH as usize) {
        let found = rows.heads(namespace, batch).await?.heads;
        for head in found.iter().filter(|head| head.sequence.is_some()) {
            for segment in segments_of(head.sequence, head.prefix.as_deref())? {
                let items = needed.entry(segment.sequence).or_default();
                *items = segment.items.max(*items);
            }
        }
    }
    Ok(needed)
}

/// Digests of the data of a thread that nothing refers to.
pub(in crate::store) async fn unneeded_contents<R: CheckpointRows>(
    rows: &mut R,
    thread: i64,
    kept: &HashSet<Uuid>,
) -> Result<Vec<Uuid>, OperationError> {
    let mut unneeded = Vec::new();
    let mut after = None;
    loop {
        let batch = rows.digests_after(thread, after, BATCH).await?;
        let Some(last) = batch.last() else {
            return Ok(unneeded);
        };
        after = Some(*last);
        unneeded.extend(batch.into_iter().filter(|digest| !kept.contains(digest)));
    }
}

fn add(kept: &mut HashSet<Uuid>, parts: &[CheckpointData]) {
    let digests = parts.iter().flat_map(CheckpointData::digests);
    kept.extend(digests.map(ContentDigest::as_uuid));
}
