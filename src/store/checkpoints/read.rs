//! Reads of checkpoints with their values, writes and data.
//!
//! Checkpoints and values never change. A removal can delete what a read has not read yet: such a
//! read is repeated, and finds a consistent state.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    AncestorQuery, CheckpointPage, CheckpointPosition, CheckpointQuery, CheckpointRecord,
    MAX_CONTENT_BYTES, MAX_SKELETON_BYTES, MAX_WRITE_CALLS,
    encoding::{Segment, decode_checkpoint, decode_value, decode_writes},
    rows::{CheckpointRow, CheckpointRows, ThreadPlace, ValueRow},
    values::segments_of,
};
use crate::{
    domain::{
        ChannelData, ChannelValue, ChannelWrite, CheckpointData, CheckpointId, CheckpointNamespace,
        ContentDigest, ConversationRef,
    },
    store::{
        StoreError,
        operation_error::{BackendError, ErrorKind, OperationError},
    },
};

/// Number of checkpoints that one page examines at most.
const MAX_EXAMINED: u32 = 1000;

/// Number of checkpoints that are read together.
const BATCH: u32 = 100;

/// Number of ancestors that one page has at most.
const MAX_ANCESTORS: usize = 200;

/// Reads a checkpoint. Returns an empty page if there is none.
pub(in crate::store) async fn read_checkpoint<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    namespace: &CheckpointNamespace,
    id: Option<CheckpointId>,
) -> Result<CheckpointPage, OperationError> {
    let place = find(rows, conversation, namespace.as_str()).await?;
    let (Some(thread), Some(number)) = (place.thread, place.namespace) else {
        return Ok(CheckpointPage::default());
    };
    let Some(row) = rows
        .checkpoint(number, id.map(CheckpointId::as_uuid))
        .await?
    else {
        return Ok(CheckpointPage::default());
    };
    let mut skeleton = Skeleton::default();
    let record = record(rows, namespace.as_str(), row, None, &mut skeleton).await?;
    let mut page = CheckpointPage {
        records: vec![record],
        ..CheckpointPage::default()
    };
    attach_contents(rows, thread, &mut page).await?;
    Ok(page)
}

/// Reads data, as much as fits into a response.
pub(in crate::store) async fn read_contents<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    digests: &[ContentDigest],
) -> Result<Vec<Bytes>, OperationError> {
    let place = find(rows, conversation, "").await?;
    let thread = place.thread.ok_or(StoreError::ContentMissing)?;
    let mut seen = HashSet::new();
    let wanted: Vec<Uuid> = digests.iter().map(|digest| digest.as_uuid()).collect();
    let distinct: Vec<Uuid> = wanted
        .iter()
        .copied()
        .filter(|id| seen.insert(*id))
        .collect();
    let found = rows.contents(thread, &distinct, max_bytes()).await?;
    let mut data = HashMap::new();
    for content in found {
        data.insert(content.digest, content.decoded()?);
    }
    let first = wanted.iter().map_while(|digest| data.get(digest).cloned());
    let first: Vec<Bytes> = first.collect();
    if first.is_empty() {
        return Err(StoreError::ContentMissing.into());
    }
    Ok(first)
}

/// Reads a page of checkpoints.
pub(in crate::store) async fn read_page<R: CheckpointRows>(
    rows: &mut R,
    query: &CheckpointQuery,
) -> Result<CheckpointPage, OperationError> {
    let named = query.namespace.as_ref().map(CheckpointNamespace::as_str);
    let place = find(rows, &query.conversation, named.unwrap_or_default()).await?;
    let mut page = CheckpointPage::default();
    let Some(thread) = place.thread else {
        return Ok(page);
    };
    let mut listing = Listing {
        query,
        examined: 0,
        skeleton: Skeleton::default(),
    };
    match (named, place.namespace) {
        (Some(_), None) => return Ok(page),
        (Some(name), Some(number)) => {
            listing.list(rows, (number, name), &mut page).await?;
        }
        (None, _) => {
            let mut after = query.after.map_or(0, |position| position.namespace - 1);
            'all: loop {
                let namespaces = rows.namespaces(thread, after, BATCH).await?;
                if namespaces.is_empty() {
                    break;
                }
                for (number, name) in namespaces {
                    after = number;
                    listing.list(rows, (number, &name), &mut page).await?;
                    if page.next.is_some() {
                        break 'all;
                    }
                }
            }
        }
    }
    attach_contents(rows, thread, &mut page).await?;
    Ok(page)
}

/// Reads ancestors of a checkpoint.
pub(in crate::store) async fn read_ancestors<R: CheckpointRows>(
    rows: &mut R,
    query: &AncestorQuery,
) -> Result<CheckpointPage, OperationError> {
    let namespace = query.namespace.as_str();
    let place = find(rows, &query.conversation, namespace).await?;
    let mut page = CheckpointPage::default();
    let (Some(thread), Some(number)) = (place.thread, place.namespace) else {
        return Ok(page);
    };
    let id = query.id.map(CheckpointId::as_uuid);
    let target = rows.checkpoint(number, id).await?;
    let mut parent = target.and_then(|row| row.parent_id);
    let mut seen = HashSet::new();
    let mut missing: HashSet<&str> = query.channels.iter().map(String::as_str).collect();
    let mut skeleton = Skeleton::default();
    while let Some(id) = parent
        && !missing.is_empty()
        // Ancestors that form a circle are read once.
        && seen.insert(id)
    {
        if page.records.len() == MAX_ANCESTORS || skeleton.bytes > MAX_CONTENT_BYTES {
            let last = page.records.last();
            page.next = last.map(|record| CheckpointPosition {
                namespace: number,
                id: record.checkpoint.id.as_uuid(),
            });
            break;
        }
        let Some(row) = rows.checkpoint(number, Some(id)).await? else {
            break;
        };
        parent = row.parent_id;
        let ancestor = record(rows, namespace, row, Some(&missing), &mut skeleton).await?;
        for value in &ancestor.checkpoint.values {
            missing.remove(value.channel.as_str());
        }
        page.records.push(ancestor);
    }
    attach_contents(rows, thread, &mut page).await?;
    Ok(page)
}

async fn find<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    namespace: &str,
) -> Result<ThreadPlace, OperationError> {
    let found = rows.find(conversation, namespace).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

/// List of the checkpoints of a query, namespace by namespace.
struct Listing<'a> {
    query: &'a CheckpointQuery,
    examined: u32,
    skeleton: Skeleton,
}

impl Listing<'_> {
    /// Adds checkpoints of a namespace to the page, until it is full.
    async fn list<R: CheckpointRows>(
        &mut self,
        rows: &mut R,
        (number, name): (i64, &str),
        page: &mut CheckpointPage,
    ) -> Result<(), OperationError> {
        let query = self.query;
        if let Some(id) = query.id {
            let id = id.as_uuid();
            let is_before = query.before.is_none_or(|before| id < before.as_uuid());
            let is_listed = query.after.is_some_and(|after| after.namespace >= number);
            if let Some(row) = rows.checkpoint(number, Some(id)).await?
                && is_before
                && !is_listed
                && matches(&row, query)?
            {
                let record = record(rows, name, row, None, &mut self.skeleton).await?;
                page.records.push(record);
            }
            return Ok(());
        }
        let after = query.after.filter(|after| after.namespace == number);
        let before = query.before.map(CheckpointId::as_uuid);
        let mut below = match (after.map(|after| after.id), before) {
            (Some(after), Some(before)) => Some(after.min(before)),
            (after, before) => after.or(before),
        };
        loop {
            let missing = query.limit as usize - page.records.len();
            let wanted = if query.filter.is_empty() {
                u32::try_from(missing + 1).unwrap_or(BATCH).min(BATCH)
            } else {
                BATCH
            };
            let batch = rows.checkpoints(number, below, wanted).await?;
            let is_last = batch.len() < wanted as usize;
            for row in batch {
                let is_full = page.records.len() == query.limit as usize
                    || self.examined == MAX_EXAMINED
                    || self.skeleton.bytes > MAX_CONTENT_BYTES;
                if is_full {
                    // Without an examined row, the page would not advance.
                    page.next = Some(CheckpointPosition {
                        namespace: number,
                        id: below.unwrap_or(Uuid::max()),
                    });
                    return Ok(());
                }
                self.examined += 1;
                below = Some(row.key.id);
                if matches(&row, query)? {
                    let record = record(rows, name, row, None, &mut self.skeleton).await?;
                    page.records.push(record);
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Whether the metadata of a checkpoint has all members of the filter.
fn matches(row: &CheckpointRow, query: &CheckpointQuery) -> Result<bool, OperationError> {
    if query.filter.is_empty() {
        return Ok(true);
    }
    let id = CheckpointId::from_uuid(row.key.id);
    let checkpoint = decode_checkpoint(id, None, row.body.clone())?;
    let metadata: serde_json::Value =
        serde_json::from_str(&checkpoint.metadata).unwrap_or_default();
    let mut filter = query.filter.iter();
    Ok(filter.all(|(key, wanted)| {
        let found = metadata.get(key);
        found.map_or(wanted.is_null(), |found| is_equal(found, wanted))
    }))
}

/// Compares values like Python, where 1 is equal to 1.0.
fn is_equal(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(a), Some(b)) if one.is_f64() || other.is_f64() => a.total_cmp(&b).is_eq(),
        _ => one == other,
    }
}

/// Bytes of a response besides the data that the thread stores once.
#[derive(Default)]
struct Skeleton {
    bytes: usize,
}

impl Skeleton {
    fn add(&mut self, bytes: usize) -> Result<(), OperationError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_SKELETON_BYTES {
            return Err(StoreError::CheckpointTooLarge.into());
        }
        Ok(())
    }

    fn add_data(&mut self, data: &ChannelData) -> Result<(), OperationError> {
        let parts = data.parts().iter().map(CheckpointData::inline_bytes);
        self.add(parts.sum())
    }
}

/// Reads the values and writes of a checkpoint. With `channels`, only those of some channels and
/// no state.
async fn record<R: CheckpointRows>(
    rows: &mut R,
    namespace: &str,
    row: CheckpointRow,
    channels: Option<&HashSet<&str>>,
    skeleton: &mut Skeleton,
) -> Result<CheckpointRecord, OperationError> {
    let CheckpointRow {
        key,
        parent_id,
        body,
    } = row;
    let id = CheckpointId::from_uuid(key.id);
    let parent_id = parent_id.map(CheckpointId::from_uuid);
    let mut checkpoint = decode_checkpoint(id, parent_id, body)?;
    let is_wanted = |channel: &str| channels.is_none_or(|channels| channels.contains(channel));
    if channels.is_some() {
        checkpoint.state = CheckpointData::default();
        checkpoint.metadata = String::new();
        checkpoint
            .versions
            .retain(|(channel, _)| is_wanted(channel));
        checkpoint.values.retain(|value| is_wanted(&value.channel));
    }
    skeleton.add(checkpoint.metadata.len() + checkpoint.state.inline_bytes())?;
    for value in &checkpoint.values {
        skeleton.add_data(&value.data)?;
    }
    let inline: HashSet<&str> = checkpoint
        .values
        .iter()
        .map(|v| v.channel.as_str())
        .collect();
    let mut versions: HashMap<Uuid, (String, String)> = HashMap::new();
    for (channel, version) in &checkpoint.versions {
        skeleton.add(channel.len() + version.len() + 8)?;
        if !inline.contains(channel.as_str()) {
            let key = ContentDigest::of_version(channel, version).as_uuid();
            versions.insert(key, (channel.clone(), version.clone()));
        }
    }
    let keys: Vec<Uuid> = versions.keys().copied().collect();
    let found = if keys.is_empty() {
        Vec::new()
    } else {
        rows.values(key.namespace, &keys).await?
    };
    for row in found {
        let Some((channel, version)) = versions.remove(&row.key) else {
            continue;
        };
        let data = value_of(rows, key.namespace, row).await?;
        skeleton.add_data(&data)?;
        checkpoint.values.push(ChannelValue {
            channel,
            version,
            base: None,
            data,
        });
    }
    let mut writes = read_writes(rows, (key.namespace, key.id), skeleton).await?;
    writes.retain(|write| is_wanted(&write.channel));
    Ok(CheckpointRecord {
        namespace: namespace.to_owned(),
        checkpoint,
        writes,
    })
}

/// Reads the value of a version, of a list all items.
async fn value_of<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    row: ValueRow,
) -> Result<ChannelData, OperationError> {
    let Some(own) = row.sequence else {
        return decode_value(row.body);
    };
    if own.first == 0 && row.prefix.is_none() && own.last > 0 {
        // The row has all items.
        return decode_value(row.body);
    }
    let items = list_items(
        rows,
        namespace,
        &segments_of(row.sequence, row.prefix.as_deref())?,
    )
    .await?;
    Ok(ChannelData::List(items))
}

/// Reads the items of segments.
pub(super) async fn list_items<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    segments: &[Segment],
) -> Result<Vec<CheckpointData>, OperationError> {
    let mut items = Vec::new();
    for segment in segments {
        let wanted = usize::try_from(segment.items).unwrap_or_default();
        let end = items.len() + wanted;
        if wanted > 0 {
            let parts = rows.sequence(namespace, segment.sequence, segment.items);
            for (_, body) in parts.await? {
                if let ChannelData::List(part) = decode_value(body)? {
                    items.extend(part);
                }
            }
        }
        if items.len() < end {
            return Err(removed_meanwhile());
        }
        items.truncate(end);
    }
    Ok(items)
}

/// Reads the writes of a checkpoint as the calls have left them, in the order in which the graph
/// applies them.
async fn read_writes<R: CheckpointRows>(
    rows: &mut R,
    (namespace, checkpoint): (i64, Uuid),
    skeleton: &mut Skeleton,
) -> Result<Vec<ChannelWrite>, OperationError> {
    let max_bytes = i64::try_from(MAX_SKELETON_BYTES).unwrap_or(i64::MAX);
    let calls = rows.writes(namespace, checkpoint, MAX_WRITE_CALLS, max_bytes);
    let calls = calls.await?;
    // More than that does not fit into a response, and was not read completely.
    if calls.iter().map(Vec::len).sum::<usize>() > MAX_SKELETON_BYTES {
        return Err(StoreError::CheckpointTooLarge.into());
    }
    let mut writes: HashMap<(String, i32), ChannelWrite> = HashMap::new();
    for body in calls {
        // Counted call by call: what is stored compressed can be larger than all memory.
        for write in decode_writes(body)? {
            skeleton.add(write.task_id.len() + write.task_path.len() + write.channel.len() + 16)?;
            skeleton.add_data(&write.data)?;
            let key = (write.task_id.clone(), write.index);
            if write.index < 0 || !writes.contains_key(&key) {
                writes.insert(key, write);
            }
        }
    }
    let mut writes: Vec<ChannelWrite> = writes.into_values().collect();
    writes.sort_by(|one, other| {
        let key = |write: &ChannelWrite| write.index;
        (&one.task_path, &one.task_id, key(one)).cmp(&(
            &other.task_path,
            &other.task_id,
            key(other),
        ))
    });
    Ok(writes)
}

/// Reads the data that the records of a page refer to, as far as it fits at all its places.
async fn attach_contents<R: CheckpointRows>(
    rows: &mut R,
    thread: i64,
    page: &mut CheckpointPage,
) -> Result<(), OperationError> {
    let mut places: HashMap<ContentDigest, usize> = HashMap::new();
    let mut digests: Vec<Uuid> = Vec::new();
    for record in &page.records {
        let values = record.checkpoint.values.iter().map(|value| &value.data);
        let writes = record.writes.iter().map(|write| &write.data);
        let parts = values.chain(writes).flat_map(ChannelData::parts);
        for digest in parts.flat_map(CheckpointData::digests) {
            let number = places.entry(digest).or_default();
            if *number == 0 {
                digests.push(digest.as_uuid());
            }
            *number += 1;
        }
    }
    if digests.is_empty() {
        return Ok(());
    }
    let contents = rows.contents(thread, &digests, max_bytes()).await?;
    let mut bytes = 0_usize;
    for content in contents {
        let digest = ContentDigest::from_uuid(content.digest);
        let data = content.decoded()?;
        let number = places.get(&digest).copied().unwrap_or_default();
        let at_all_places = data.len().saturating_mul(number);
        // Data that is left out is read by its digest.
        let fits = bytes.saturating_add(at_all_places) <= MAX_CONTENT_BYTES;
        if fits {
            bytes = bytes.saturating_add(at_all_places);
            page.contents.push((digest, data));
        }
    }
    Ok(())
}

fn max_bytes() -> i64 {
    i64::try_from(MAX_CONTENT_BYTES).unwrap_or(i64::MAX)
}

/// Error of a read whose rows a removal has deleted. A repetition succeeds.
fn removed_meanwhile() -> OperationError {
    let cause = "a removal has deleted rows of a checkpoint during its read";
    BackendError::new(ErrorKind::Retryable, cause).into()
}
