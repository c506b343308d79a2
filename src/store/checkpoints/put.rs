//! Writes of checkpoints, of writes of tasks and of data.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{
    PutCheckpoint, PutWrites, StoredCheckpoint,
    encoding::{
        Segment, content, decode_prefix, encode_checkpoint, encode_prefix, encode_value,
        encode_writes,
    },
    read::list_items,
    rows::{
        CheckpointRows, NewCheckpointRow, NewMessages, NewValueRow, NewWritesRow, SequenceRow,
        ThreadPlace, ValueRow,
    },
};
use crate::{
    domain::{
        ChannelData, ChannelValue, CheckpointId, CheckpointNamespace, ContentDigest, Contents,
        ConversationId, ConversationRef, checkpoint_message_id,
    },
    store::{StoreError, operation_error::OperationError},
};

/// Upper bound on the sequences that a list consists of. A list that would consist of more is
/// stored as a whole.
const MAX_SEGMENTS: usize = 16;

/// Stores a checkpoint. See [`CheckpointStore::put_checkpoint`](super::CheckpointStore::put_checkpoint).
pub(in crate::store) async fn put_checkpoint<R: CheckpointRows>(
    rows: &mut R,
    put: &PutCheckpoint,
) -> Result<StoredCheckpoint, OperationError> {
    let name = put.thread_name.as_deref();
    let opened = open(rows, &put.conversation, name, &put.namespace, &put.contents);
    let (place, namespace) = opened.await?;
    add_values(rows, namespace, &put.checkpoint.values).await?;
    let row = NewCheckpointRow {
        id: put.checkpoint.id.as_uuid(),
        parent_id: put.checkpoint.parent_id.map(CheckpointId::as_uuid),
        run_id: put.run.map(ContentDigest::as_uuid),
        body: encode_checkpoint(&put.checkpoint),
    };
    rows.put_checkpoint(namespace, row).await?;
    let new = new_messages(rows, put, &place).await?;
    if new.messages.is_empty() {
        let last_seq = place.last_seq;
        return Ok(StoredCheckpoint {
            last_seq,
            saved: None,
        });
    }
    let messages = new.messages.clone();
    let appended = rows.append(new).await?;
    let last_seq = place.last_seq + i64::try_from(messages.len()).unwrap_or(i64::MAX);
    Ok(StoredCheckpoint {
        last_seq,
        saved: Some((messages, appended)),
    })
}

/// Stores writes of a task. See [`CheckpointStore::put_writes`](super::CheckpointStore::put_writes).
pub(in crate::store) async fn put_writes<R: CheckpointRows>(
    rows: &mut R,
    put: &PutWrites,
) -> Result<(), OperationError> {
    let name = put.thread_name.as_deref();
    let opened = open(rows, &put.conversation, name, &put.namespace, &put.contents);
    let (_, namespace) = opened.await?;
    let body = encode_writes(&put.writes);
    let row = NewWritesRow {
        checkpoint_id: put.checkpoint_id.as_uuid(),
        digest: ContentDigest::of(&body).as_uuid(),
        replaces: put.writes.iter().all(|write| write.index < 0),
        body: super::encoding::compress(&body),
    };
    rows.put_writes(namespace, row).await
}

/// Stores data. See [`CheckpointStore::put_contents`](super::CheckpointStore::put_contents).
pub(in crate::store) async fn put_contents<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    thread_name: Option<&str>,
    contents: &Contents,
) -> Result<(), OperationError> {
    let place = rows.lock(conversation, "").await?;
    let mut place = place.ok_or(StoreError::NotFound)?;
    let thread = thread_of(rows, conversation, thread_name, &mut place).await?;
    add_contents(rows, thread, contents).await
}

/// Locks the conversation, and stores data that its thread does not have. Returns the place of the
/// thread, and the number of the namespace.
async fn open<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    name: Option<&str>,
    namespace: &CheckpointNamespace,
    contents: &Contents,
) -> Result<(ThreadPlace, i64), OperationError> {
    let namespace = namespace.as_str();
    let place = rows.lock(conversation, namespace).await?;
    let mut place = place.ok_or(StoreError::NotFound)?;
    let (thread, number) = place_of(rows, conversation, name, namespace, &mut place).await?;
    add_contents(rows, thread, contents).await?;
    Ok((place, number))
}

/// Returns the numbers of the thread and the namespace, which are added if they are missing.
pub(super) async fn place_of<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    name: Option<&str>,
    namespace: &str,
    place: &mut ThreadPlace,
) -> Result<(i64, i64), OperationError> {
    let thread = thread_of(rows, conversation, name, place).await?;
    let number = match place.namespace {
        Some(number) => number,
        None => rows.add_namespace(thread, namespace).await?,
    };
    Ok((thread, number))
}

async fn thread_of<R: CheckpointRows>(
    rows: &mut R,
    conversation: &ConversationRef,
    name: Option<&str>,
    place: &mut ThreadPlace,
) -> Result<i64, OperationError> {
    if let Some(thread) = place.thread {
        return Ok(thread);
    }
    let thread = rows.add_thread(conversation.id.as_uuid(), name).await?;
    place.thread = Some(thread);
    Ok(thread)
}

async fn add_contents<R: CheckpointRows>(
    rows: &mut R,
    thread: i64,
    contents: &Contents,
) -> Result<(), OperationError> {
    let referenced: Vec<Uuid> = contents.referenced.iter().map(|d| d.as_uuid()).collect();
    if !referenced.is_empty() {
        let stored = rows.count_contents(thread, &referenced).await?;
        if usize::try_from(stored) != Ok(referenced.len()) {
            return Err(StoreError::ContentMissing.into());
        }
    }
    if contents.new.is_empty() {
        return Ok(());
    }
    let new = contents.new.iter();
    let new = new.map(|(digest, data)| content(*digest, data)).collect();
    rows.add_contents(thread, new).await
}

/// Stores the values of versions that are not stored yet.
async fn add_values<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    values: &[ChannelValue],
) -> Result<(), OperationError> {
    let versioned = || values.iter().filter(|value| !value.version.is_empty());
    if versioned().next().is_none() {
        return Ok(());
    }
    let own = versioned().map(key_of);
    let bases = versioned().filter_map(base_key_of);
    let keys: Vec<Uuid> = own
        .chain(bases)
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    let heads = rows.values(namespace, &keys, true).await?;
    let heads: HashMap<Uuid, ValueRow> = heads.into_iter().map(|row| (row.key, row)).collect();
    let mut plan = Plan {
        namespace,
        next_sequence: None,
    };
    let mut new = Vec::new();
    for value in versioned().filter(|value| !heads.contains_key(&key_of(value))) {
        let base = base_key_of(value).and_then(|key| heads.get(&key));
        new.push(plan.row(rows, value, base).await?);
    }
    if new.is_empty() {
        return Ok(());
    }
    rows.add_values(namespace, new).await
}

fn key_of(value: &ChannelValue) -> Uuid {
    ContentDigest::of_version(&value.channel, &value.version).as_uuid()
}

fn base_key_of(value: &ChannelValue) -> Option<Uuid> {
    let base = value.base.as_ref()?;
    Some(ContentDigest::of_version(&value.channel, &base.version).as_uuid())
}

/// Plan of the rows that a put adds to a namespace.
struct Plan {
    namespace: i64,
    next_sequence: Option<i32>,
}

impl Plan {
    async fn row<R: CheckpointRows>(
        &mut self,
        rows: &mut R,
        value: &ChannelValue,
        base: Option<&ValueRow>,
    ) -> Result<NewValueRow, OperationError> {
        let ChannelData::List(items) = &value.data else {
            return Ok(new_row(value, None, &[], &value.data));
        };
        let base_items = value.base.as_ref().map_or(0, |base| base.items);
        let base_items = i32::try_from(base_items).map_err(|_| StoreError::BaseVersionMissing)?;
        if value.base.is_some() && base.is_none() {
            return Err(StoreError::BaseVersionMissing.into());
        }
        let mut segments = match base {
            Some(base) if base.sequence.is_some() => segments_of(base)?,
            // An empty list has no sequence.
            _ => Vec::new(),
        };
        let total: i32 = segments.iter().map(|segment| segment.items).sum();
        if base_items > total {
            return Err(StoreError::BaseVersionMissing.into());
        }
        let is_whole = base_items == total;
        truncate(&mut segments, base_items);
        let added = i32::try_from(items.len()).unwrap_or(i32::MAX);
        // A row continues a sequence, unless another version already does. One without items of its
        // own ends within a sequence.
        if let Some(last) = segments.last().copied()
            && (added == 0
                || is_whole
                    && !rows
                        .is_continued(self.namespace, last.sequence, last.items)
                        .await?)
        {
            segments.pop();
            let sequence = SequenceRow {
                sequence: last.sequence,
                first: last.items,
                last: last.items.saturating_add(added),
            };
            return Ok(new_row(value, Some(sequence), &segments, &value.data));
        }
        if added == 0 {
            return Ok(new_row(value, None, &[], &value.data));
        }
        let sequence = self.next_sequence(rows).await?;
        if segments.len() < MAX_SEGMENTS {
            let sequence = SequenceRow {
                sequence,
                first: 0,
                last: added,
            };
            return Ok(new_row(value, Some(sequence), &segments, &value.data));
        }
        let mut all = list_items(rows, self.namespace, &segments).await?;
        all.extend_from_slice(items);
        let sequence = SequenceRow {
            sequence,
            first: 0,
            last: i32::try_from(all.len()).unwrap_or(i32::MAX),
        };
        Ok(new_row(value, Some(sequence), &[], &ChannelData::List(all)))
    }

    async fn next_sequence<R: CheckpointRows>(
        &mut self,
        rows: &mut R,
    ) -> Result<i32, OperationError> {
        let next = match self.next_sequence {
            Some(next) => next,
            None => rows.last_sequence(self.namespace).await? + 1,
        };
        self.next_sequence = Some(next + 1);
        Ok(next)
    }
}

fn new_row(
    value: &ChannelValue,
    sequence: Option<SequenceRow>,
    prefix: &[Segment],
    data: &ChannelData,
) -> NewValueRow {
    NewValueRow {
        key: key_of(value),
        sequence,
        prefix: encode_prefix(prefix),
        body: encode_value(data),
    }
}

/// Segments that a stored list consists of. Fails if the value is no list.
pub(super) fn segments_of(row: &ValueRow) -> Result<Vec<Segment>, OperationError> {
    let own = row.sequence.ok_or(StoreError::BaseVersionMissing)?;
    let mut segments = decode_prefix(row.prefix.as_deref())?;
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

/// Selects the messages that the conversation does not contain. A message of a thread that was
/// copied has the id that was derived from the original.
async fn new_messages<R: CheckpointRows>(
    rows: &mut R,
    put: &PutCheckpoint,
    place: &ThreadPlace,
) -> Result<NewMessages, OperationError> {
    let mut new = NewMessages {
        conversation: put.conversation.clone(),
        messages: Vec::new(),
        title: None,
        at: put.at,
    };
    if put.messages.is_empty() {
        return Ok(new);
    }
    let own = put.conversation.id.as_uuid();
    let mut sources = vec![(own, i64::MAX)];
    if place.has_lineage {
        sources.extend(rows.lineage(own).await?);
    }
    let id_in = |source: Uuid, key: &str| {
        checkpoint_message_id(ConversationId::from_uuid(source), key).as_uuid()
    };
    let ids: Vec<Uuid> = put
        .messages
        .iter()
        .flat_map(|(key, _)| sources.iter().map(move |(source, _)| id_in(*source, key)))
        .collect();
    let found = rows.messages(&ids).await?;
    let is_contained = |conversation: &Uuid, seq: i64| {
        let mut sources = sources.iter();
        sources.any(|(source, upto)| source == conversation && seq <= *upto)
    };
    let mut known: HashSet<Uuid> = found
        .into_iter()
        .filter(|(conversation, seq, _)| is_contained(conversation, *seq))
        .map(|(_, _, id)| id)
        .collect();
    for (index, (key, message)) in put.messages.iter().enumerate() {
        let is_known = sources
            .iter()
            .any(|(source, _)| known.contains(&id_in(*source, key)));
        let id = checkpoint_message_id(put.conversation.id, key);
        if is_known || !known.insert(id.as_uuid()) {
            continue;
        }
        if let Some((title, titled)) = &put.title
            && *titled == index
        {
            new.title = Some((title.clone(), new.messages.len()));
        }
        new.messages.push(crate::domain::NewMessage {
            id,
            id_chosen: true,
            ..message.clone()
        });
    }
    Ok(new)
}
