//! Writes of checkpoints, of writes of tasks and of data.

use std::collections::HashSet;

use uuid::Uuid;

use super::{
    MAX_WRITE_CALLS, PutCheckpoint, PutWrites, StoredCheckpoint,
    encoding::{compress, content, encode_checkpoint, encode_writes},
    read::list_items,
    rows::{
        CheckpointRows, Content, Heads, NewCheckpointRow, NewMessages, NewWritesRow, PlannedPut,
        ThreadPlace,
    },
    values,
};
use crate::{
    domain::{
        ChannelValue, ChannelWrite, CheckpointId, CheckpointNamespace, ContentDigest, Contents,
        ConversationId, ConversationRef, MessageId, checkpoint_message_id,
    },
    store::{StoreError, operation_error::OperationError},
};

/// Stores a checkpoint. See [`CheckpointStore::put_checkpoint`](super::CheckpointStore::put_checkpoint).
pub(in crate::store) async fn put_checkpoint<R: CheckpointRows>(
    rows: &mut R,
    put: &PutCheckpoint,
) -> Result<StoredCheckpoint, OperationError> {
    let name = put.thread_name.as_deref();
    let opened = open(rows, &put.conversation, name, &put.namespace, &put.contents);
    let (place, namespace) = opened.await?;
    require_stored(rows, namespace, put).await?;
    add_values(rows, namespace, &put.checkpoint.values).await?;
    rows.put_checkpoint(namespace, checkpoint_row(put)).await?;
    for row in task_writes_rows(put) {
        add_writes(rows, namespace, row).await?;
    }
    let new = new_messages(rows, put, place.own_after).await?;
    if new.messages.is_empty() {
        return Ok(StoredCheckpoint::without_messages(place.last_seq));
    }
    let messages = new.messages.clone();
    let appended = rows.append(new).await?;
    Ok(StoredCheckpoint::with_messages(messages, appended))
}

/// Stores writes of a task. See [`CheckpointStore::put_writes`](super::CheckpointStore::put_writes).
pub(in crate::store) async fn put_writes<R: CheckpointRows>(
    rows: &mut R,
    put: &PutWrites,
) -> Result<(), OperationError> {
    let name = put.thread_name.as_deref();
    let opened = open(rows, &put.conversation, name, &put.namespace, &put.contents);
    let (_, namespace) = opened.await?;
    add_writes(rows, namespace, writes_row(put)).await
}

async fn add_writes<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    row: NewWritesRow,
) -> Result<(), OperationError> {
    if !rows.admits_writes(namespace, &row, MAX_WRITE_CALLS).await? {
        let max = MAX_WRITE_CALLS;
        return Err(StoreError::TooManyWrites { max }.into());
    }
    rows.put_writes(namespace, row).await
}

/// Rows of a put that was planned with `stored`; `None` if further reads are necessary.
pub(in crate::store) fn plan_put(
    put: &PutCheckpoint,
    stored: &Heads,
) -> Result<Option<PlannedPut>, OperationError> {
    let planned = values::plan(&put.checkpoint.values, stored)?;
    if !planned.iter().all(|value| value.repeated.is_empty()) {
        return Ok(None);
    }
    let values = planned.into_iter();
    Ok(Some(PlannedPut {
        contents: contents_rows(&put.contents),
        values: values.map(|value| value.encode(Vec::new())).collect(),
        checkpoint: checkpoint_row(put),
        writes: task_writes_rows(put),
    }))
}

/// Keys of the values that a put is planned with.
pub(in crate::store) fn keys_of(put: &PutCheckpoint) -> Vec<Uuid> {
    values::keys_of(&put.checkpoint.values)
}

/// Keys of the values that a put refers to without containing them, each once.
pub(in crate::store) fn stored_keys(put: &PutCheckpoint) -> Vec<Uuid> {
    if put.stored_channels.is_empty() {
        return Vec::new();
    }
    let mut channels: HashSet<&str> = put.stored_channels.iter().map(String::as_str).collect();
    for value in &put.checkpoint.values {
        channels.remove(value.channel.as_str());
    }
    let versions = put.checkpoint.versions.iter();
    let keys: HashSet<Uuid> = versions
        .filter(|(channel, _)| channels.contains(channel.as_str()))
        .map(|(channel, version)| ContentDigest::of_version(channel, version).as_uuid())
        .collect();
    keys.into_iter().collect()
}

/// Rejects a put if a removal has deleted a value that it refers to.
async fn require_stored<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    put: &PutCheckpoint,
) -> Result<(), OperationError> {
    let keys = stored_keys(put);
    if !keys.is_empty() && rows.heads(namespace, &keys).await?.heads.len() < keys.len() {
        return Err(StoreError::BaseVersionMissing.into());
    }
    Ok(())
}

fn checkpoint_row(put: &PutCheckpoint) -> NewCheckpointRow {
    NewCheckpointRow {
        id: put.checkpoint.id.as_uuid(),
        parent_id: put.checkpoint.parent_id.map(CheckpointId::as_uuid),
        run_id: put.run.map(ContentDigest::as_uuid),
        body: encode_checkpoint(&put.checkpoint),
    }
}

/// Row of the writes of a call.
pub(in crate::store) fn writes_row(put: &PutWrites) -> NewWritesRow {
    row_of_writes(put.checkpoint_id, &put.writes)
}

/// Rows of the writes that are stored with a checkpoint.
fn task_writes_rows(put: &PutCheckpoint) -> Vec<NewWritesRow> {
    let Some(parent) = put.checkpoint.parent_id else {
        return Vec::new();
    };
    let tasks = put.task_writes.iter();
    tasks.map(|writes| row_of_writes(parent, writes)).collect()
}

fn row_of_writes(checkpoint: CheckpointId, writes: &[ChannelWrite]) -> NewWritesRow {
    let body = encode_writes(writes);
    NewWritesRow {
        checkpoint_id: checkpoint.as_uuid(),
        digest: ContentDigest::of(&body).as_uuid(),
        replaces: writes.iter().all(|write| write.index < 0),
        body: compress(&body),
    }
}

/// Rows of new data.
pub(in crate::store) fn contents_rows(contents: &Contents) -> Vec<Content> {
    let new = contents.new.iter();
    new.map(|(digest, data)| content(*digest, data)).collect()
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
pub(in crate::store) async fn place_of<R: CheckpointRows>(
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
    rows.add_contents(thread, contents_rows(contents)).await
}

/// Stores the values of versions that are not stored yet.
async fn add_values<R: CheckpointRows>(
    rows: &mut R,
    namespace: i64,
    values: &[ChannelValue],
) -> Result<(), OperationError> {
    let keys = values::keys_of(values);
    if keys.is_empty() {
        return Ok(());
    }
    let stored = rows.heads(namespace, &keys).await?;
    let mut new = Vec::new();
    for planned in values::plan(values, &stored)? {
        let repeated = list_items(rows, namespace, &planned.repeated).await?;
        new.push(planned.encode(repeated));
    }
    if new.is_empty() {
        return Ok(());
    }
    rows.add_values(namespace, new).await
}

/// Messages that a conversation contains of those that are stored under an id.
struct Source {
    id: ConversationId,
    after_seq: i64,
    upto_seq: i64,
}

impl Source {
    /// Id of the message with a key.
    fn message_id(&self, key: &str) -> MessageId {
        checkpoint_message_id(self.id, key)
    }

    /// Id of a message whose first id is that of a message of a deleted conversation, which had the
    /// same id as this one.
    fn other_message_id(&self, key: &str) -> Option<MessageId> {
        // Keys of callers do not contain a NUL.
        let key = || format!("{key}\0{}", self.after_seq);
        (self.after_seq > 0).then(|| checkpoint_message_id(self.id, &key()))
    }

    fn message_ids(&self, key: &str) -> impl Iterator<Item = Uuid> {
        let ids = [Some(self.message_id(key)), self.other_message_id(key)];
        ids.into_iter().flatten().map(MessageId::as_uuid)
    }

    fn contains(&self, source: Uuid, seq: i64) -> bool {
        self.id.as_uuid() == source && seq > self.after_seq && seq <= self.upto_seq
    }
}

/// Selects the messages that the conversation does not contain. A message of a thread that was
/// copied has the id that was derived from the original.
pub(in crate::store) async fn new_messages<R: CheckpointRows>(
    rows: &mut R,
    put: &PutCheckpoint,
    own_after: i64,
) -> Result<NewMessages, OperationError> {
    if put.messages.is_empty() {
        return Ok(all_messages(put));
    }
    let own = put.conversation.id;
    let mut sources = vec![Source {
        id: own,
        after_seq: own_after,
        upto_seq: i64::MAX,
    }];
    if own_after > 0 {
        let ranges = rows.lineage(own.as_uuid()).await?.into_iter();
        sources.extend(ranges.map(|(id, after_seq, upto_seq)| Source {
            id: ConversationId::from_uuid(id),
            after_seq,
            upto_seq,
        }));
    }
    let ids_in = |source: &Source, key: &str| -> Vec<(Uuid, Uuid)> {
        let ids = source.message_ids(key);
        ids.map(|id| (source.id.as_uuid(), id)).collect()
    };
    let ids: Vec<(Uuid, Uuid)> = put
        .messages
        .iter()
        .flat_map(|(key, _)| sources.iter().flat_map(move |source| ids_in(source, key)))
        .collect();
    let found = rows.messages(&ids).await?;
    let contained = found
        .iter()
        .filter(|(id, seq, _)| sources.iter().any(|source| source.contains(*id, *seq)));
    let known: HashSet<Uuid> = contained.map(|(_, _, id)| *id).collect();
    let used: HashSet<Uuid> = found.iter().map(|(_, _, id)| *id).collect();
    Ok(select_messages(put, |key| {
        let mut ids = sources.iter().flat_map(|source| source.message_ids(key));
        if ids.any(|id| known.contains(&id)) {
            return None;
        }
        let id = sources[0].message_id(key);
        let is_used = used.contains(&id.as_uuid());
        let other = sources[0].other_message_id(key).filter(|_| is_used);
        Some(other.unwrap_or(id))
    }))
}

/// Selects the messages of a put to a conversation that contains none of them.
pub(in crate::store) fn all_messages(put: &PutCheckpoint) -> NewMessages {
    let own = put.conversation.id;
    select_messages(put, |key| Some(checkpoint_message_id(own, key)))
}

/// Selects the messages that have an id for their key, each once.
fn select_messages(put: &PutCheckpoint, id_of: impl Fn(&str) -> Option<MessageId>) -> NewMessages {
    let mut new = NewMessages {
        conversation: put.conversation.clone(),
        messages: Vec::new(),
        title: None,
        at: put.at,
    };
    let mut keys = HashSet::new();
    for (index, (key, message)) in put.messages.iter().enumerate() {
        let Some(id) = id_of(key).filter(|_| keys.insert(key.as_str())) else {
            continue;
        };
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
    new
}
