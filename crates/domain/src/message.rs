use std::{collections::HashSet, fmt};

use chrono::{DateTime, Utc};

use super::{
    AuthorName, Content, ConversationId, FieldError, InField as _, InvalidValue, Limits, MessageId,
    Metadata, Part, RawContext, RawPart, RetrievedContext, Role, non_negative, part,
};

/// Message to be saved.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// Id, chosen by the caller or generated.
    pub id: MessageId,
    /// Whether the caller chose the id. Only a chosen id identifies a retry.
    pub id_chosen: bool,
    /// Author of the message.
    pub role: Role,
    /// Name of the author.
    pub name: Option<AuthorName>,
    /// Text; empty only if there are parts or metadata.
    pub content: Content,
    /// Parts, in order; empty if the message consists of its text. Blobs have their data.
    pub parts: Vec<Part>,
    /// Tokens in a model's input, 0 or more; `None` if they have not been counted yet.
    pub token_count: Option<i32>,
    /// Whether every history includes the message.
    pub pinned: bool,
    /// Whether the message was redacted before it was exported. It then has no text.
    pub redacted: bool,
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
    /// See [`NewMessage::name`]; empty for `None`.
    pub name: String,
    /// Text; empty, or that of the parts, if they have texts.
    pub content: String,
    /// See [`NewMessage::parts`].
    pub parts: Vec<RawPart>,
    /// See [`NewMessage::token_count`].
    pub token_count: Option<i32>,
    /// See [`NewMessage::pinned`].
    pub pinned: bool,
    /// See [`NewMessage::redacted`].
    pub redacted: bool,
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
            name: String::new(),
            content: content.into(),
            parts: Vec::new(),
            token_count: None,
            pinned: false,
            redacted: false,
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
            name,
            content,
            parts,
            token_count,
            pinned,
            redacted,
            tokens_used,
            latency_ms,
            created_at,
            metadata,
        } = raw;
        let (content, parts) = part::assemble(content, parts, role, limits)?;
        if content.is_empty()
            && parts.is_empty()
            && !redacted
            && metadata.as_ref().is_none_or(Metadata::is_empty)
        {
            let reason = InvalidValue::new("is required where there are no parts and no metadata");
            return Err(FieldError::new("content", reason));
        }
        let is_empty = content.is_empty()
            && parts.is_empty()
            && name.is_empty()
            && metadata.is_none()
            && contexts.len() == 0;
        if redacted && !is_empty {
            let reason =
                "must not be set where there is content, parts, name, metadata or contexts";
            return Err(FieldError::new("redacted", InvalidValue::new(reason)));
        }
        if pinned && is_grouped(role, &parts) {
            let reason = InvalidValue::new(
                "must not be set on tool calls, their results, or reasoning alone",
            );
            return Err(FieldError::new("pinned", reason));
        }
        Ok(Self {
            id_chosen: id.is_some(),
            id: id.unwrap_or_else(generate_id),
            role,
            name: (!name.is_empty())
                .then(|| AuthorName::parse(name))
                .transpose()
                .in_field("name")?,
            content: Content::parse(content, limits).in_field("content")?,
            parts,
            token_count: token_count
                .map(non_negative)
                .transpose()
                .in_field("token_count")?,
            pinned,
            redacted,
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
        size(
            &self.content,
            &self.parts,
            self.metadata.as_ref(),
            &self.contexts,
        )
    }

    /// Size of the data of all blobs, in bytes.
    pub fn blob_bytes(&self) -> usize {
        let blobs = self.parts.iter().filter_map(Part::as_blob);
        blobs.map(|blob| blob.bytes).sum()
    }

    /// Number of values in the metadata of the message and of its contexts, counted
    /// as by [`Metadata::weight`].
    pub fn weight(&self) -> usize {
        let contexts = self.contexts.iter().map(|context| &context.metadata);
        let all = contexts.chain([&self.metadata]);
        all.flatten().map(Metadata::weight).sum()
    }

    /// Converts into the message that is stored under `seq`, without its contexts and the data of
    /// blobs.
    pub fn into_stored(
        self,
        conversation_id: ConversationId,
        seq: i64,
        saved_at: DateTime<Utc>,
    ) -> Message {
        let mut parts = self.parts;
        for blob in parts.iter_mut().filter_map(Part::as_blob_mut) {
            blob.data = None;
        }
        Message {
            id: self.id,
            conversation_id,
            seq,
            role: self.role,
            name: self.name,
            content: self.content,
            parts,
            token_count: self.token_count,
            pinned: self.pinned,
            redacted: self.redacted,
            tokens_used: self.tokens_used,
            latency_ms: self.latency_ms,
            created_at: self.created_at.unwrap_or(saved_at),
            metadata: self.metadata,
            contexts: Vec::new(),
        }
    }

    /// Whether `stored` is the outcome of saving this message. If the caller set no time, any
    /// stored time matches. The count of tokens is not compared, since it may have been counted
    /// with another encoding, and neither are the texts of a redacted message.
    pub fn is_saved_as(&self, stored: &Message) -> bool {
        if stored.redacted {
            return self.id == stored.id && self.role == stored.role;
        }
        self.id == stored.id
            && self.role == stored.role
            && self.name == stored.name
            && self.content == stored.content
            && self.parts == stored.parts
            && self.pinned == stored.pinned
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
    /// Author of the message.
    pub role: Role,
    /// Name of the author.
    pub name: Option<AuthorName>,
    /// Text; empty only if there are parts or metadata, or if the message is redacted.
    pub content: Content,
    /// Parts, in order; empty if the message consists of its text. Blobs have their data only if
    /// it was requested.
    pub parts: Vec<Part>,
    /// Tokens in a model's input; `None` for messages that were saved before tokens were counted.
    pub token_count: Option<i32>,
    /// Whether every history includes the message.
    pub pinned: bool,
    /// Whether a redaction has removed text, parts, metadata and contexts.
    pub redacted: bool,
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

    /// Approximate size in a response, in bytes, without the data of blobs.
    pub fn size(&self) -> usize {
        size(
            &self.content,
            &self.parts,
            self.metadata.as_ref(),
            &self.contexts,
        )
    }

    /// Bytes that a response accounts for the message: its size, or more if it has many small
    /// values, as [`Metadata::footprint`].
    pub fn footprint(&self) -> usize {
        let parts = self.parts.iter().map(Part::size);
        let metadata = self.metadata.as_ref().map_or(0, Metadata::footprint);
        let contexts = self.contexts.iter().map(RetrievedContext::footprint);
        self.content.as_str().len() + parts.sum::<usize>() + metadata + contexts.sum::<usize>()
    }

    /// Tokens in a model's input. Those of a message that was saved before they were counted are
    /// estimated from its size.
    pub fn tokens(&self) -> u64 {
        /// Bytes of a token, on average.
        const BYTES_PER_TOKEN: u64 = 4;
        match self.token_count {
            Some(count) => u64::try_from(count).unwrap_or_default(),
            None => (self.size() as u64).div_ceil(BYTES_PER_TOKEN),
        }
    }

    /// Whether the message is the summary of a compaction, which has no number.
    pub fn is_summary(&self) -> bool {
        self.seq == 0
    }

    /// Whether the message may not be valid in a history by itself: tool calls and results depend
    /// on each other, and reasoning on the message after it.
    pub fn is_grouped(&self) -> bool {
        is_grouped(self.role, &self.parts)
    }

    /// Whether a part is a blob.
    pub fn has_blobs(&self) -> bool {
        self.parts.iter().any(|part| part.as_blob().is_some())
    }

    /// The parts with their texts; empty if the message consists of its text.
    pub fn raw_parts(&self) -> Vec<RawPart> {
        part::render(self.content.as_str(), &self.parts)
    }

    /// Removes everything but number, id, role and times.
    pub fn redact(&mut self) {
        self.name = None;
        self.content = Content::default();
        self.parts.clear();
        self.token_count = Some(0);
        self.pinned = false;
        self.redacted = true;
        self.metadata = None;
        self.contexts.clear();
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

fn size(
    content: &Content,
    parts: &[Part],
    metadata: Option<&Metadata>,
    contexts: &[RetrievedContext],
) -> usize {
    let parts = parts.iter().map(Part::size);
    let metadata = metadata.map_or(0, Metadata::size);
    let contexts = contexts.iter().map(RetrievedContext::size);
    content.as_str().len() + parts.sum::<usize>() + metadata + contexts.sum::<usize>()
}

/// Whether model APIs may reject a message without those before and after it. A message of a tool
/// is a result, also if it does not name the call.
fn is_grouped(role: Role, parts: &[Part]) -> bool {
    let depends_on_call =
        |part: &Part| matches!(part, Part::ToolCall { .. } | Part::ToolCallResponse { .. });
    let is_reasoning = |part: &Part| matches!(part, Part::Reasoning { .. });
    role == Role::Tool
        || parts.iter().any(depends_on_call)
        || (!parts.is_empty() && parts.iter().all(is_reasoning))
}

#[cfg(test)]
mod tests;
