use std::{collections::HashSet, fmt};

use chrono::{DateTime, Utc};

use super::{
    Content, ConversationId, FieldError, InField as _, InvalidValue, Limits, MessageId, Metadata,
    RawContext, RetrievedContext, Role, non_negative,
};

/// Message to be saved.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// Id, chosen by the caller or generated.
    pub id: MessageId,
    /// Whether the caller chose the id. Only a chosen id identifies a retry.
    pub id_chosen: bool,
    /// Author.
    pub role: Role,
    /// Text; empty only if there is metadata.
    pub content: Content,
    /// Tokens that the model used, 0 or more.
    pub tokens_used: Option<i32>,
    /// Duration of the model's answer in milliseconds, 0 or more.
    pub latency_ms: Option<i32>,
    /// Time of the message, to the microsecond and of the years 1 to 9999; `None` uses
    /// the time of saving.
    pub created_at: Option<DateTime<Utc>>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
    /// Documents that retrieval supplied for the message.
    pub contexts: Vec<RetrievedContext>,
}

/// Fields of a message as a caller supplied them, before validation.
pub struct RawMessage {
    /// Id that the caller chose; `None` generates one.
    pub id: Option<MessageId>,
    /// See [`NewMessage::role`].
    pub role: Role,
    /// See [`NewMessage::content`].
    pub content: String,
    /// See [`NewMessage::tokens_used`].
    pub tokens_used: Option<i32>,
    /// See [`NewMessage::latency_ms`].
    pub latency_ms: Option<i32>,
    /// See [`NewMessage::created_at`]. Parsed by [`super::from_unix_time`] or
    /// [`super::from_rfc3339`], which check the year.
    pub created_at: Option<DateTime<Utc>>,
    /// See [`NewMessage::metadata`].
    pub metadata: Option<Metadata>,
}

impl RawMessage {
    /// Creates a message that contains only text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self {
            id: None,
            role,
            content: content.into(),
            tokens_used: None,
            latency_ms: None,
            created_at: None,
            metadata: None,
        }
    }
}

impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMessage").finish_non_exhaustive()
    }
}

impl NewMessage {
    /// Upper bound on the contexts of a message.
    pub const MAX_CONTEXTS: usize = 100;
    /// Upper bound on the messages of one save.
    pub const MAX_PER_SAVE: usize = 100;
    /// Upper bound on the values in all metadata of a save, counted as by
    /// [`Metadata::weight`]. In memory a value takes far more bytes than it takes in
    /// a request.
    pub const MAX_VALUES_PER_SAVE: usize = 300_000;

    /// Validates a message and its contexts.
    ///
    /// `contexts` is read item by item up to the first error, so that a caller that decodes
    /// metadata lazily never has more of it in memory than one message may contain.
    ///
    /// # Errors
    ///
    /// Fails with a [`FieldError`] that names the first invalid field, such as `contexts[0].score`,
    /// and errors of `contexts` under `contexts[i]`.
    pub fn new(
        raw: RawMessage,
        contexts: impl ExactSizeIterator<Item = Result<RawContext, FieldError>>,
        generate_id: impl FnOnce() -> MessageId,
        limits: &Limits,
    ) -> Result<Self, FieldError> {
        let RawMessage {
            id,
            role,
            content,
            tokens_used,
            latency_ms,
            created_at,
            metadata,
        } = raw;
        if content.is_empty() && metadata.as_ref().is_none_or(Metadata::is_empty) {
            let reason = InvalidValue::new("is required where there is no metadata");
            return Err(FieldError::new("content", reason));
        }
        Ok(Self {
            id_chosen: id.is_some(),
            id: id.unwrap_or_else(generate_id),
            role,
            content: Content::parse(content, limits).in_field("content")?,
            tokens_used: tokens_used
                .map(non_negative)
                .transpose()
                .in_field("tokens_used")?,
            latency_ms: latency_ms
                .map(non_negative)
                .transpose()
                .in_field("latency_ms")?,
            created_at,
            contexts: validate_contexts(contexts, metadata.as_ref(), limits)
                .map_err(|error| error.below("contexts"))?,
            metadata,
        })
    }

    /// Validates the messages of one save.
    ///
    /// # Errors
    ///
    /// Fails with [`FieldError`] if there are no messages, or more than [`Self::MAX_PER_SAVE`], or
    /// two with the same id, and errors of `messages` under `[i]`.
    pub fn batch(
        messages: impl ExactSizeIterator<Item = Result<Self, FieldError>>,
    ) -> Result<Vec<Self>, FieldError> {
        let max = Self::MAX_PER_SAVE;
        if messages.len() == 0 || messages.len() > max {
            let reason = InvalidValue::new(format!("must have 1 to {max} messages"));
            return Err(FieldError::new("", reason));
        }
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages {
            let message =
                message.map_err(|error| error.below(format_args!("[{}]", batch.len())))?;
            batch.push(message);
        }
        let mut ids = HashSet::with_capacity(batch.len());
        match batch.iter().position(|message| !ids.insert(message.id)) {
            None => Ok(batch),
            Some(at) => Err(FieldError::new(
                format!("[{at}].id"),
                InvalidValue::new("is the id of an earlier message of this request"),
            )),
        }
    }

    /// Approximate size in a response, in bytes.
    pub fn size(&self) -> usize {
        size(&self.content, self.metadata.as_ref(), &self.contexts)
    }

    /// Number of values in the metadata of the message and of its contexts, counted
    /// as by [`Metadata::weight`].
    pub fn weight(&self) -> usize {
        let contexts = self.contexts.iter().map(|context| &context.metadata);
        let all = contexts.chain([&self.metadata]);
        all.flatten().map(Metadata::weight).sum()
    }

    /// Converts into the message that is stored under `seq`, without its contexts.
    pub fn into_stored(
        self,
        conversation_id: ConversationId,
        seq: i64,
        saved_at: DateTime<Utc>,
    ) -> Message {
        Message {
            id: self.id,
            conversation_id,
            seq,
            role: self.role,
            content: self.content,
            tokens_used: self.tokens_used,
            latency_ms: self.latency_ms,
            created_at: self.created_at.unwrap_or(saved_at),
            metadata: self.metadata,
            contexts: Vec::new(),
        }
    }

    /// Whether `stored` is the outcome of saving this message. If the caller set no time, any
    /// stored time matches.
    pub fn is_saved_as(&self, stored: &Message) -> bool {
        self.id == stored.id
            && self.role == stored.role
            && self.content == stored.content
            && self.tokens_used == stored.tokens_used
            && self.latency_ms == stored.latency_ms
            && self.created_at.is_none_or(|at| at == stored.created_at)
            && self.metadata == stored.metadata
            && self.contexts == stored.contexts
    }
}

/// Message with its number in the conversation that it was exported from.
#[derive(Clone, Debug, PartialEq)]
pub struct NumberedMessage {
    /// Number, 1 or more.
    pub seq: i64,
    /// Message.
    pub message: NewMessage,
}

/// Message as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Id.
    pub id: MessageId,
    /// Conversation whose history contains the message.
    pub conversation_id: ConversationId,
    /// Number in the conversation, 1 or more.
    pub seq: i64,
    /// Author.
    pub role: Role,
    /// Text; empty only if there is metadata.
    pub content: Content,
    /// Tokens that the model used, 0 or more.
    pub tokens_used: Option<i32>,
    /// Duration of the model's answer in milliseconds, 0 or more.
    pub latency_ms: Option<i32>,
    /// Time of the message, to the microsecond. It determines no order.
    pub created_at: DateTime<Utc>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
    /// Documents that retrieval supplied; empty if they were not requested.
    pub contexts: Vec<RetrievedContext>,
}

impl Message {
    /// Upper bound on the messages of a response, in bytes of [`Self::size`]: gRPC
    /// clients accept 4 MiB unless configured otherwise.
    pub const MAX_BYTES_PER_RESPONSE: usize = 3 << 20;

    /// Approximate size in a response, in bytes.
    pub fn size(&self) -> usize {
        size(&self.content, self.metadata.as_ref(), &self.contexts)
    }
}

/// Validates contexts one by one, so that metadata beyond the limit of a save is not
/// kept in memory.
fn validate_contexts(
    contexts: impl ExactSizeIterator<Item = Result<RawContext, FieldError>>,
    metadata: Option<&Metadata>,
    limits: &Limits,
) -> Result<Vec<RetrievedContext>, FieldError> {
    let max = NewMessage::MAX_CONTEXTS;
    if contexts.len() > max {
        let reason = InvalidValue::new(format!("must have at most {max} contexts"));
        return Err(FieldError::new("", reason));
    }
    let mut values = metadata.map_or(0, Metadata::weight);
    let mut valid = Vec::with_capacity(contexts.len());
    for context in contexts {
        let context = context
            .and_then(|raw| RetrievedContext::new(raw, limits))
            .map_err(|error| error.below(format_args!("[{}]", valid.len())))?;
        values += context.metadata.as_ref().map_or(0, Metadata::weight);
        if values > NewMessage::MAX_VALUES_PER_SAVE {
            let max = NewMessage::MAX_VALUES_PER_SAVE;
            let reason = InvalidValue::new(format!("must have at most {max} values in metadata"));
            return Err(FieldError::new("", reason));
        }
        valid.push(context);
    }
    Ok(valid)
}

fn size(content: &Content, metadata: Option<&Metadata>, contexts: &[RetrievedContext]) -> usize {
    let metadata = metadata.map_or(0, Metadata::size);
    let contexts = contexts.iter().map(RetrievedContext::size);
    content.as_str().len() + metadata + contexts.sum::<usize>()
}

#[cfg(test)]
mod tests;
