use chrono::{DateTime, Utc};
use prost_types::{FieldMask, Timestamp};

use crate::{
    archive, call,
    domain::{
        Content, ConversationChanges, ConversationId, FieldError, InvalidValue, Limits, MessageId,
        Metadata, MetadataFilter, NewMessage, RawContext, RawMessage, RawPart, RequestId, Role,
        Title, UserId, from_unix_time, non_negative,
    },
    memory::{CompactConversation, HistoryLimits, Memory},
    proto::{self, structs},
    rpc::{
        convert::{captured, owner_scope::OwnerScope},
        field::{FieldViolation, InField},
    },
};

/// Parses an optional text. An empty text is `None`.
pub(crate) fn optional<'a, T>(
    text: &'a str,
    path: &str,
    parse: impl FnOnce(&'a str) -> Result<T, InvalidValue>,
) -> Result<Option<T>, FieldViolation> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).in_field(path)
}

/// Parses the id of the conversation that a call is about.
pub(super) fn conversation_id(text: &str, path: &str) -> Result<ConversationId, FieldViolation> {
    let id = ConversationId::parse(text).in_field(path)?;
    // The id is recorded here, so that the span of a call that is rejected for another reason
    // contains it, too.
    call::set_conversation(id);
    Ok(id)
}

/// Parses the id of a conversation in an optional field; `None` if it is empty.
pub(crate) fn optional_conversation_id(
    text: &str,
) -> Result<Option<ConversationId>, FieldViolation> {
    (!text.is_empty())
        .then(|| conversation_id(text, "conversation_id"))
        .transpose()
}

/// Parses a required user.
pub(crate) fn user_id(text: &str) -> Result<UserId, FieldViolation> {
    UserId::parse(text).in_field("user_id")
}

/// Parses the limits on a history.
pub(crate) fn history_limits(
    limit: i32,
    max_tokens: i32,
    start_on_user: bool,
) -> Result<HistoryLimits, FieldViolation> {
    let limit = non_negative(limit.into()).in_field("limit")?;
    let max_tokens = non_negative(max_tokens.into()).in_field("max_tokens")?;
    Ok(HistoryLimits {
        limit: (limit > 0).then(|| clamp(limit, Memory::MAX_LIMIT)),
        max_tokens: (max_tokens > 0).then(|| clamp(max_tokens, u32::MAX)),
        start_on_user,
    })
}

/// Parses a page size: 0 is `default`, and sizes above `max` are `max`.
pub(crate) fn page_size(size: i32, default: u32, max: u32) -> Result<u32, FieldViolation> {
    let size = non_negative(size.into()).in_field("page_size")?;
    Ok(if size == 0 { default } else { clamp(size, max) })
}

/// Parses the sequence number of a message, or 0.
pub(crate) fn seq(seq: i64, path: &str) -> Result<i64, FieldViolation> {
    non_negative(seq).in_field(path)
}

/// Parses the sequence number of a message, 1 or more.
pub(crate) fn message_seq(seq: i64, path: &str) -> Result<i64, FieldViolation> {
    if seq < 1 {
        return Err(FieldViolation::new(
            path,
            InvalidValue::new("must be 1 or more"),
        ));
    }
    Ok(seq)
}

/// Parses the sequence numbers of the messages to redact.
pub(crate) fn message_seqs(seqs: Vec<i64>, path: &str) -> Result<Vec<i64>, FieldViolation> {
    let max = Memory::MAX_REDACTED;
    if seqs.is_empty() || seqs.len() > max {
        let reason = InvalidValue::new(format!("must have 1 to {max} sequence numbers"));
        return Err(FieldViolation::new(path, reason));
    }
    for (index, seq) in seqs.iter().enumerate() {
        message_seq(*seq, &format!("{path}[{index}]"))?;
    }
    Ok(seqs)
}

/// Parses the consistency of a read: whether it must read the durable store.
pub(crate) fn strong(consistency: i32) -> Result<bool, FieldViolation> {
    match proto::Consistency::try_from(consistency) {
        Ok(proto::Consistency::Unspecified | proto::Consistency::Cached) => Ok(false),
        Ok(proto::Consistency::Strong) => Ok(true),
        Err(_) => Err(FieldViolation::new(
            "consistency",
            InvalidValue::new("is not a known consistency"),
        )),
    }
}

/// Parses the format of an export.
pub(crate) fn export_format(format: i32) -> Result<archive::Format, FieldViolation> {
    match proto::ExportFormat::try_from(format) {
        Ok(proto::ExportFormat::Unspecified | proto::ExportFormat::Json) => {
            Ok(archive::Format::Json)
        }
        Ok(proto::ExportFormat::Jsonl) => Ok(archive::Format::JsonLines),
        Ok(proto::ExportFormat::Csv) => Ok(archive::Format::Csv),
        Ok(proto::ExportFormat::Markdown) => Ok(archive::Format::Markdown),
        Err(_) => Err(FieldViolation::new(
            "format",
            InvalidValue::new("is not a known format"),
        )),
    }
}

/// Parses the format of an import; `None` if it must be detected from the file.
pub(crate) fn import_format(format: i32) -> Result<Option<archive::Format>, FieldViolation> {
    (format != proto::ExportFormat::Unspecified as i32)
        .then(|| export_format(format))
        .transpose()
}

/// Parser of messages and metadata, with their limits and the source of ids for messages
/// without one.
#[derive(Clone, Debug)]
pub(crate) struct Parser {
    pub(crate) limits: Limits,
    /// Limit on a message in an imported file, in bytes: the same as on a request.
    pub(crate) max_request_bytes: usize,
    pub(crate) memory: Memory,
    pub(crate) owner_scope: OwnerScope,
}

impl Parser {
    /// Parses the metadata in the field at `path`.
    pub(crate) fn metadata(
        &self,
        metadata: Option<prost_types::Struct>,
        path: &str,
    ) -> Result<Option<Metadata>, FieldViolation> {
        metadata
            .map(|object| structs::parse(object, self.limits.metadata_bytes))
            .transpose()
            .in_field(path)
    }

    /// Parses the messages of a turn.
    pub(crate) fn messages(
        &self,
        messages: Vec<proto::Message>,
        conversation: ConversationId,
    ) -> Result<Vec<NewMessage>, FieldViolation> {
        let messages = messages
            .into_iter()
            .map(|message| self.message(message, conversation));
        let messages = NewMessage::batch(messages).map_err(|error| error.below("messages"))?;
        call::capture_input(|| {
            captured::messages(messages.iter().map(|m| (m.role, m.content.as_str())))
        });
        Ok(messages)
    }

    fn message(
        &self,
        message: proto::Message,
        conversation: ConversationId,
    ) -> Result<NewMessage, FieldError> {
        let named = optional(
            &message.conversation_id,
            "conversation_id",
            ConversationId::parse,
        )?;
        if named.is_some_and(|named| named != conversation) {
            let reason = InvalidValue::new("must be the request's conversation_id or empty");
            return Err(FieldError::new("conversation_id", reason));
        }
        let raw = RawMessage {
            id: optional(&message.id, "id", MessageId::parse)?,
            role: role(message.role)?,
            name: message.name,
            content: message.content,
            parts: message
                .parts
                .into_iter()
                .enumerate()
                .map(|(index, part)| raw_part(part, index))
                .collect::<Result<_, _>>()?,
            token_count: message.token_count,
            pinned: message.pinned,
            redacted: false,
            tokens_used: message.tokens_used,
            latency_ms: message.latency_ms,
            created_at: message
                .created_at
                .map(|time| from_unix_time(time.seconds, time.nanos))
                .transpose()
                .in_field("created_at")?,
            metadata: self.metadata(message.metadata, "metadata")?,
        };
        let contexts = message
            .contexts
            .into_iter()
            .map(|context| self.context(context));
        NewMessage::new(raw, contexts, || self.new_message_id(), &self.limits)
    }

    fn context(&self, context: proto::RetrievedContext) -> Result<RawContext, FieldError> {
        Ok(RawContext {
            doc_id: context.doc_id,
            content: context.content,
            score: context.score,
            metadata: self.metadata(context.metadata, "metadata")?,
        })
    }

    fn new_message_id(&self) -> MessageId {
        MessageId::from_uuid(self.memory.new_id())
    }

    /// Parses a `CompactConversation`.
    pub(crate) fn compaction(
        &self,
        request: proto::CompactConversationRequest,
    ) -> Result<CompactConversation, FieldViolation> {
        let conversation = self
            .owner_scope
            .conversation(&request.conversation_id, &request.user_id)?;
        let upto_seq = seq(request.upto_seq, "upto_seq")?;
        if (upto_seq == 0) != request.summary.is_empty() {
            let reason = if upto_seq == 0 {
                "must be empty if upto_seq is 0"
            } else {
                "is required unless upto_seq is 0"
            };
            return Err(FieldViolation::new("summary", InvalidValue::new(reason)));
        }
        let summary = Content::parse(request.summary, &self.limits).in_field("summary")?;
        call::capture_input(|| captured::messages([(Role::System, summary.as_str())].into_iter()));
        Ok(CompactConversation {
            conversation,
            upto_seq,
            summary,
            token_count: request
                .token_count
                .map(non_negative)
                .transpose()
                .in_field("token_count")?,
            expected_last_seq: request
                .expected_last_seq
                .map(|last| seq(last, "expected_last_seq"))
                .transpose()?,
            request_id: optional(&request.request_id, "request_id", RequestId::parse)?,
        })
    }

    /// Parses the changes of an `UpdateConversation`.
    pub(crate) fn changes(
        &self,
        conversation: proto::Conversation,
        mask: Option<FieldMask>,
    ) -> Result<ConversationChanges, FieldViolation> {
        let title = optional(&conversation.title, "title", Title::parse)
            .map_err(|error| error.below("conversation"))?;
        let metadata = self
            .metadata(conversation.metadata, "metadata")
            .map_err(|error| error.below("conversation"))?;
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            if title.is_none() && metadata.is_none() {
                let reason = InvalidValue::new("must contain title or metadata if neither is set");
                return Err(FieldViolation::new("update_mask", reason));
            }
            return Ok(ConversationChanges {
                title: title.map(Some),
                metadata: metadata.map(Some),
            });
        }
        let mut changes = ConversationChanges::default();
        for path in paths {
            match path.as_str() {
                "title" => changes.title = Some(title.clone()),
                "metadata" => changes.metadata = Some(metadata.clone()),
                _ => {
                    let reason = InvalidValue::new("must contain only title and metadata");
                    return Err(FieldViolation::new("update_mask", reason));
                }
            }
        }
        Ok(changes)
    }
}

/// Parses a role that may be unset; `None` if it is.
pub(crate) fn optional_role(number: i32) -> Result<Option<Role>, FieldViolation> {
    (number != proto::Role::Unspecified as i32)
        .then(|| role(number))
        .transpose()
}

/// Times from which and until which messages are considered.
type TimeRange = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// Parses a range of times, each end of which may be unset.
pub(crate) fn time_range(
    from: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<TimeRange, FieldViolation> {
    let parse = |time: Option<Timestamp>, path| {
        time.map(|time| from_unix_time(time.seconds, time.nanos).in_field(path))
            .transpose()
    };
    let range = (parse(from, "created_from")?, parse(until, "created_until")?);
    if let (Some(from), Some(until)) = range
        && until <= from
    {
        let reason = InvalidValue::new("must be later than created_from");
        return Err(FieldViolation::new("created_until", reason));
    }
    Ok(range)
}

/// Returns a time as a field to which a page token is bound.
pub(crate) fn time_text(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |Timestamp { seconds, nanos }| {
        format!("{seconds}.{nanos}")
    })
}

/// Parses the condition on the metadata of messages.
pub(crate) fn metadata_filter(
    request: &proto::SearchMessagesRequest,
) -> Result<Option<MetadataFilter>, FieldViolation> {
    let filter = optional(
        &request.metadata_key,
        "metadata_key",
        MetadataFilter::with_key,
    )?;
    match (&request.metadata_value, filter) {
        (None, filter) => Ok(filter),
        (Some(value), Some(filter)) => filter.and_value(value).map(Some).in_field("metadata_value"),
        (Some(_), None) => {
            let reason = InvalidValue::new("needs a metadata_key");
            Err(FieldViolation::new("metadata_value", reason))
        }
    }
}

fn role(role: i32) -> Result<Role, FieldViolation> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::User) => Ok(Role::User),
        Ok(proto::Role::Assistant) => Ok(Role::Assistant),
        Ok(proto::Role::System) => Ok(Role::System),
        Ok(proto::Role::Tool) => Ok(Role::Tool),
        Ok(proto::Role::Unspecified) => Err(FieldViolation::new(
            "role",
            InvalidValue::new("is required"),
        )),
        Err(_) => Err(FieldViolation::new(
            "role",
            InvalidValue::new("is not a known role"),
        )),
    }
}

fn raw_part(part: proto::Part, index: usize) -> Result<RawPart, FieldError> {
    use proto::part::Kind;
    let Some(kind) = part.kind else {
        let reason = InvalidValue::new("must have one of the part types");
        return Err(FieldError::new(format!("parts[{index}]"), reason));
    };
    Ok(match kind {
        Kind::Text(proto::TextPart { content }) => RawPart::Text { content },
        Kind::Reasoning(proto::ReasoningPart { content }) => RawPart::Reasoning { content },
        Kind::ToolCall(call) => RawPart::ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        },
        Kind::ToolCallResponse(proto::ToolCallResponsePart { id, response }) => {
            RawPart::ToolCallResponse { id, response }
        }
        Kind::Blob(blob) => RawPart::Blob {
            mime_type: blob.mime_type,
            modality: blob.modality,
            bytes: blob.data.len(),
            data: Some(blob.data),
        },
        Kind::Uri(uri) => RawPart::Uri {
            mime_type: uri.mime_type,
            modality: uri.modality,
            uri: uri.uri,
        },
        Kind::File(file) => RawPart::File {
            mime_type: file.mime_type,
            modality: file.modality,
            file_id: file.file_id,
        },
        Kind::Generic(generic) => RawPart::Generic {
            generic_type: generic.r#type,
            json: generic.json,
        },
    })
}

pub(super) fn clamp(number: i64, max: u32) -> u32 {
    u32::try_from(number).map_or(max, |number| number.min(max))
}
