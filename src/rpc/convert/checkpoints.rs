mod render;
mod values;

use std::collections::HashSet;

use bytes::Bytes;
use chrono::{DateTime, Utc};

pub(crate) use self::render::checkpoint_page;
use self::values::{at_most, checkpoint, name, object, too_many_at, write_data};
use super::parse::{Parser, optional};
use crate::{
    domain::{
        ChannelWrite, Checkpoint, CheckpointId, CheckpointNamespace, ContentDigest, Contents,
        ConversationRef, FieldError, InField as _, InvalidValue, MAX_CHANNELS,
        MAX_CHECKPOINT_MESSAGES, MAX_INLINE_BYTES, MAX_WRITES, NewMessage, UserId,
    },
    memory::NewThread,
    proto,
    rpc::field::FieldViolation,
    store::{Invalidation, PutCheckpoint, PutWrites},
};

/// Upper bound on the characters of a task's position, and on those of a thread's name.
const MAX_PATH_CHARS: usize = 4096;
const MAX_THREAD_NAME_CHARS: usize = 1024;
/// Upper bound on the tasks whose writes are stored with a checkpoint.
const MAX_TASKS: usize = 100;
/// Upper bound on the runs of one call.
const MAX_RUNS: usize = 100;

/// Parser of the requests that store checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointParser {
    /// Parser of messages.
    pub(crate) messages: Parser,
}

impl CheckpointParser {
    /// Parses a `PutCheckpoint`. Messages that are not valid are left out.
    pub(crate) fn put_checkpoint(
        &self,
        request: proto::PutCheckpointRequest,
    ) -> Result<(PutCheckpoint, Option<NewThread>), FieldViolation> {
        let conversation = self
            .messages
            .owner_scope
            .conversation(&request.conversation_id, &request.user_id)?;
        let mut contents = Contents::default();
        let given = request.checkpoint;
        let given = given.ok_or_else(|| required("checkpoint"))?;
        let namespace =
            CheckpointNamespace::parse(given.namespace.clone()).in_field("checkpoint.namespace")?;
        let checkpoint =
            checkpoint(given, &mut contents).map_err(|error| error.below("checkpoint"))?;
        let stored_channels = stored_channels(request.stored_channels, &checkpoint)?;
        let task_writes = task_writes(request.task_writes, &checkpoint, &mut contents)?;
        contents.deduplicate();
        if request.messages.len() > MAX_CHECKPOINT_MESSAGES {
            return Err(too_many("messages", MAX_CHECKPOINT_MESSAGES));
        }
        let mut messages = Vec::with_capacity(request.messages.len());
        for (index, message) in request.messages.into_iter().enumerate() {
            let path = format!("messages[{index}].key");
            let key = name(message.key).in_field(&path)?;
            let parsed = message.message.unwrap_or_default();
            messages.extend(self.message(parsed, &conversation).map(|new| (key, new)));
        }
        let run = optional(&request.run_id, "run_id", |run| name(run.to_owned()))?;
        let new = self.new_thread(request.new_thread, &conversation)?;
        let put = PutCheckpoint {
            conversation,
            thread_name: new.as_ref().and_then(|new| new.name.clone()),
            namespace,
            checkpoint,
            stored_channels,
            task_writes,
            run: run.as_deref().map(ContentDigest::of_run),
            contents,
            messages,
            title: None,
            invalidation: Invalidation::Never,
            at: DateTime::<Utc>::default(),
        };
        Ok((put, new))
    }

    /// Parses a message, whose id is derived later. `None` if it is not valid: it must not fail the
    /// checkpoint.
    fn message(
        &self,
        message: proto::Message,
        conversation: &ConversationRef,
    ) -> Option<NewMessage> {
        let message = proto::Message {
            id: String::new(),
            conversation_id: String::new(),
            ..message
        };
        let parsed = self.messages.messages(vec![message], conversation.id);
        parsed.ok()?.pop()
    }

    /// Parses a `PutWrites`.
    pub(crate) fn put_writes(
        &self,
        request: proto::PutWritesRequest,
    ) -> Result<(PutWrites, Option<NewThread>), FieldViolation> {
        let conversation = self
            .messages
            .owner_scope
            .conversation(&request.conversation_id, &request.user_id)?;
        let mut contents = Contents::default();
        let given = proto::TaskWrites {
            task_id: request.task_id,
            task_path: request.task_path,
            writes: request.writes,
        };
        let writes = writes_of_task(given, &mut contents)?;
        contents.deduplicate();
        let new = self.new_thread(request.new_thread, &conversation)?;
        let put = PutWrites {
            conversation,
            thread_name: new.as_ref().and_then(|new| new.name.clone()),
            namespace: namespace(request.namespace)?,
            checkpoint_id: CheckpointId::parse(&request.checkpoint_id).in_field("checkpoint_id")?,
            writes,
            contents,
        };
        Ok((put, new))
    }

    /// Parses the conversation of a new thread, if the call creates one. It belongs to the user that
    /// the caller claims, if there is one.
    pub(crate) fn new_thread(
        &self,
        new: Option<proto::NewThread>,
        conversation: &ConversationRef,
    ) -> Result<Option<NewThread>, FieldViolation> {
        let Some(new) = new else {
            return Ok(None);
        };
        let name =
            at_most(new.thread_id, MAX_THREAD_NAME_CHARS).in_field("new_thread.thread_id")?;
        let user_id = optional(&new.user_id, "new_thread.user_id", UserId::parse)?;
        if let (Some(owner), Some(claimed)) = (&user_id, &conversation.user_id)
            && owner != claimed
        {
            let reason = InvalidValue::new("must be empty or equal to user_id");
            return Err(FieldViolation::new("new_thread.user_id", reason));
        }
        Ok(Some(NewThread {
            user_id,
            name: (!name.is_empty()).then_some(name),
            metadata: self
                .messages
                .metadata(new.metadata, "new_thread.metadata")?,
        }))
    }
}

/// Parses the writes of a task.
fn writes_of_task(
    given: proto::TaskWrites,
    contents: &mut Contents,
) -> Result<Vec<ChannelWrite>, FieldError> {
    let task_id = name(given.task_id).in_field("task_id")?;
    let task_path = at_most(given.task_path, MAX_PATH_CHARS).in_field("task_path")?;
    if given.writes.is_empty() || given.writes.len() > MAX_WRITES {
        let reason = InvalidValue::new(format!("must have 1 to {MAX_WRITES} writes"));
        return Err(FieldError::new("writes", reason));
    }
    let mut writes = Vec::with_capacity(given.writes.len());
    for (index, write) in given.writes.into_iter().enumerate() {
        let channel = name(write.channel).in_field(&format!("writes[{index}].channel"))?;
        let data = write_data(write.value, contents)
            .map_err(|error| error.below(format!("writes[{index}]")))?;
        writes.push(ChannelWrite {
            task_id: task_id.clone(),
            task_path: task_path.clone(),
            index: write.index,
            channel,
            data,
        });
    }
    Ok(writes)
}

/// Parses the writes of tasks to the parent of a checkpoint.
fn task_writes(
    given: Vec<proto::TaskWrites>,
    checkpoint: &Checkpoint,
    contents: &mut Contents,
) -> Result<Vec<Vec<ChannelWrite>>, FieldViolation> {
    if given.len() > MAX_TASKS {
        return Err(too_many("task_writes", MAX_TASKS));
    }
    if !given.is_empty() && checkpoint.parent_id.is_none() {
        let reason = InvalidValue::new("is required for task_writes");
        return Err(FieldViolation::new(
            "checkpoint.parent_checkpoint_id",
            reason,
        ));
    }
    let tasks = given.into_iter().enumerate().map(|(index, task)| {
        writes_of_task(task, contents).map_err(|error| error.below(format!("task_writes[{index}]")))
    });
    Ok(tasks.collect::<Result<_, FieldError>>()?)
}

/// Parses the namespace of a request.
pub(crate) fn namespace(text: String) -> Result<CheckpointNamespace, FieldViolation> {
    Ok(CheckpointNamespace::parse(text).in_field("namespace")?)
}

/// Parses data to store.
pub(crate) fn contents(given: Vec<Bytes>) -> Result<Contents, FieldViolation> {
    let mut contents = Contents::default();
    for (index, data) in given.into_iter().enumerate() {
        let path = format!("contents[{index}]");
        if data.len() <= MAX_INLINE_BYTES {
            let reason = InvalidValue::new(format!("must have more than {MAX_INLINE_BYTES} bytes"));
            return Err(FieldViolation::new(path, reason));
        }
        contents.add(data).in_field(&path)?;
    }
    contents.deduplicate();
    Ok(contents)
}

/// Parses the channels of a checkpoint whose values an earlier request has stored.
fn stored_channels(
    channels: Vec<String>,
    checkpoint: &Checkpoint,
) -> Result<Vec<String>, FieldViolation> {
    if channels.len() > MAX_CHANNELS {
        return Err(too_many("stored_channels", MAX_CHANNELS));
    }
    let versions = checkpoint.versions.iter();
    let known: HashSet<&str> = versions.map(|(channel, _)| channel.as_str()).collect();
    for (index, channel) in channels.iter().enumerate() {
        if !known.contains(channel.as_str()) {
            let reason = InvalidValue::new("must be a channel of channel_versions");
            let path = format!("stored_channels[{index}]");
            return Err(FieldViolation::new(path, reason));
        }
    }
    Ok(channels)
}

/// Parses the channels of a request.
pub(crate) fn channels(channels: Vec<String>) -> Result<Vec<String>, FieldViolation> {
    if channels.is_empty() || channels.len() > MAX_CHANNELS {
        let reason = InvalidValue::new(format!("must have 1 to {MAX_CHANNELS} channels"));
        return Err(FieldViolation::new("channels", reason));
    }
    let channels = channels.into_iter().enumerate();
    let channels = channels.map(|(index, text)| name(text).in_field(&format!("channels[{index}]")));
    Ok(channels.collect::<Result<_, FieldError>>()?)
}

/// Parses the runs of a request.
pub(crate) fn runs(runs: &[String]) -> Result<Vec<ContentDigest>, FieldViolation> {
    if runs.is_empty() || runs.len() > MAX_RUNS {
        let reason = InvalidValue::new(format!("must have 1 to {MAX_RUNS} runs"));
        return Err(FieldViolation::new("run_ids", reason));
    }
    let runs = runs.iter().enumerate();
    let runs = runs.map(|(index, run)| {
        let run = name(run.clone()).in_field(&format!("run_ids[{index}]"))?;
        Ok(ContentDigest::of_run(&run))
    });
    Ok(runs.collect::<Result<_, FieldError>>()?)
}

/// Whether a strategy deletes whole threads.
pub(crate) fn deletes_threads(strategy: i32) -> Result<bool, FieldViolation> {
    match proto::PruneStrategy::try_from(strategy) {
        Ok(proto::PruneStrategy::KeepLatest) => Ok(false),
        Ok(proto::PruneStrategy::Delete) => Ok(true),
        Ok(proto::PruneStrategy::Unspecified) => Err(required("strategy")),
        Err(_) => Err(FieldViolation::new(
            "strategy",
            InvalidValue::new("is not a known strategy"),
        )),
    }
}

/// Parses the filter of a list; empty for none.
pub(crate) fn filter(
    json: &str,
) -> Result<serde_json::Map<String, serde_json::Value>, FieldViolation> {
    if json.is_empty() {
        return Ok(serde_json::Map::new());
    }
    Ok(object(json).in_field("filter_json")?)
}

fn required(path: &str) -> FieldViolation {
    FieldViolation::new(path, InvalidValue::new("is required"))
}

fn too_many(path: &str, max: usize) -> FieldViolation {
    too_many_at(path, max).into()
}
