use chrono::{DateTime, Utc};
use prost_types::{FieldMask, Timestamp};
use uuid::Uuid;

use crate::{
    archive,
    domain::{
        Content, Context, ConversationChanges, ConversationId, InvalidValue, Limits, MessageId,
        Metadata, NewMessage, Role, Title, UserId,
    },
    memory::Memory,
    proto,
    rpc::{
        convert::{captured, owner_scope::OwnerScope},
        field::{FieldError, InField},
        structs,
    },
    telemetry::call,
};

/// Parses an optional text: an empty one is none.
pub(crate) fn optional<'a, T>(
    text: &'a str,
    path: &str,
    parse: impl FnOnce(&'a str) -> Result<T, InvalidValue>,
) -> Result<Option<T>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).in_field(path)
}

/// The id of the conversation that a call is about.
pub(super) fn conversation_id(text: &str, path: &str) -> Result<ConversationId, FieldError> {
    let id = ConversationId::parse(text).in_field(path)?;
    // Said here, so that a call that is refused for another reason shows it too.
    call::set_conversation(id);
    Ok(id)
}

/// The same, where it may be missing.
pub(crate) fn optional_conversation_id(text: &str) -> Result<Option<ConversationId>, FieldError> {
    (!text.is_empty())
        .then(|| conversation_id(text, "conversation_id"))
        .transpose()
}

/// The user that a request must name.
pub(crate) fn user_id(text: &str) -> Result<UserId, FieldError> {
    UserId::parse(text).in_field("user_id")
}

/// How many of the newest messages; None for the default.
pub(crate) fn history_limit(limit: i32) -> Result<Option<u32>, FieldError> {
    let limit = not_negative(limit.into()).in_field("limit")?;
    Ok((limit > 0).then(|| clamp(limit, Memory::MAX_LIMIT)))
}

/// How many rows a page has: 0 for the default, clamped to the maximum.
pub(crate) fn page_size(size: i32, default: u32, max: u32) -> Result<u32, FieldError> {
    let size = not_negative(size.into()).in_field("page_size")?;
    Ok(if size == 0 { default } else { clamp(size, max) })
}

/// A message's number, or 0.
pub(crate) fn seq(seq: i64, path: &str) -> Result<i64, FieldError> {
    not_negative(seq).in_field(path)
}

/// The number of a message.
pub(crate) fn message_seq(seq: i64, path: &str) -> Result<i64, FieldError> {
    if seq < 1 {
        return Err(FieldError::new(
            path,
            InvalidValue::new("must be 1 or more"),
        ));
    }
    Ok(seq)
}

/// Whether a read must come from the durable store.
pub(crate) fn strong(consistency: i32) -> Result<bool, FieldError> {
    match proto::Consistency::try_from(consistency) {
        Ok(proto::Consistency::Unspecified | proto::Consistency::Cached) => Ok(false),
        Ok(proto::Consistency::Strong) => Ok(true),
        Err(_) => Err(FieldError::new(
            "consistency",
            InvalidValue::new("is no known consistency"),
        )),
    }
}

/// How a file is to be written.
pub(crate) fn export_format(format: i32) -> Result<archive::Format, FieldError> {
    match proto::ExportFormat::try_from(format) {
        Ok(proto::ExportFormat::Unspecified | proto::ExportFormat::Json) => {
            Ok(archive::Format::Json)
        }
        Ok(proto::ExportFormat::Jsonl) => Ok(archive::Format::JsonLines),
        Ok(proto::ExportFormat::Csv) => Ok(archive::Format::Csv),
        Err(_) => Err(FieldError::new(
            "format",
            InvalidValue::new("is no known format"),
        )),
    }
}

/// How a file was written; None where that is to be seen from it.
pub(crate) fn import_format(format: i32) -> Result<Option<archive::Format>, FieldError> {
    (format != proto::ExportFormat::Unspecified as i32)
        .then(|| export_format(format))
        .transpose()
}

/// What turns requests into messages and metadata: the limits, and ids for
/// messages that come without one.
#[derive(Clone, Debug)]
pub(crate) struct Parser {
    pub(crate) limits: Limits,
    /// How large a message of a file may be: as large as one that is saved.
    pub(crate) max_request_bytes: usize,
    pub(crate) memory: Memory,
    pub(crate) owner_scope: OwnerScope,
}

impl Parser {
    /// Metadata under a field's name.
    pub(crate) fn metadata(
        &self,
        metadata: Option<prost_types::Struct>,
        path: &str,
    ) -> Result<Option<Metadata>, FieldError> {
        metadata
            .map(|object| structs::parse(object, self.limits.metadata_bytes))
            .transpose()
            .in_field(path)
    }

    /// The messages of a turn.
    pub(crate) fn messages(
        &self,
        messages: Vec<proto::Message>,
        conversation: ConversationId,
    ) -> Result<Vec<NewMessage>, FieldError> {
        let max = NewMessage::MAX_PER_SAVE;
        if messages.is_empty() || messages.len() > max {
            let reason = InvalidValue::new(format!("must have 1 to {max} messages"));
            return Err(FieldError::new("messages", reason));
        }
        let messages: Vec<NewMessage> = messages
            .into_iter()
            .enumerate()
            .map(|(at, message)| {
                self.message(message, conversation)
                    .map_err(|error| error.below(format_args!("messages[{at}]")))
            })
            .collect::<Result<_, _>>()?;
        unique_ids(&messages)?;
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
        let id = optional(&message.id, "id", MessageId::parse)?;
        let metadata = self.metadata(message.metadata, "metadata")?;
        if message.content.is_empty() && metadata.as_ref().is_none_or(Metadata::is_empty) {
            let reason = InvalidValue::new("is required where there is no metadata");
            return Err(FieldError::new("content", reason));
        }
        Ok(NewMessage {
            id_chosen: id.is_some(),
            id: id.unwrap_or_else(|| MessageId::from_uuid(self.new_id())),
            role: role(message.role)?,
            content: Content::parse(message.content, &self.limits).in_field("content")?,
            tokens_used: count(message.tokens_used, "tokens_used")?,
            latency_ms: count(message.latency_ms, "latency_ms")?,
            created_at: message
                .created_at
                .map(time)
                .transpose()
                .in_field("created_at")?,
            metadata,
            contexts: self.contexts(message.contexts)?,
        })
    }

    fn contexts(&self, contexts: Vec<proto::RetrievedContext>) -> Result<Vec<Context>, FieldError> {
        if contexts.len() > NewMessage::MAX_CONTEXTS {
            let max = NewMessage::MAX_CONTEXTS;
            let reason = InvalidValue::new(format!("must have at most {max} contexts"));
            return Err(FieldError::new("contexts", reason));
        }
        contexts
            .into_iter()
            .enumerate()
            .map(|(at, context)| {
                self.context(context)
                    .map_err(|error| error.below(format_args!("contexts[{at}]")))
            })
            .collect()
    }

    fn context(&self, context: proto::RetrievedContext) -> Result<Context, FieldError> {
        if context.score.is_some_and(|score| !score.is_finite()) {
            return Err(FieldError::new(
                "score",
                InvalidValue::new("must be finite"),
            ));
        }
        Ok(Context {
            doc_id: Context::parse_doc_id(context.doc_id).in_field("doc_id")?,
            content: Content::parse(context.content, &self.limits).in_field("content")?,
            score: context.score,
            metadata: self.metadata(context.metadata, "metadata")?,
        })
    }

    fn new_id(&self) -> Uuid {
        self.memory.new_id()
    }

    /// What an `UpdateConversation` changes.
    pub(crate) fn changes(
        &self,
        conversation: proto::Conversation,
        mask: Option<FieldMask>,
    ) -> Result<ConversationChanges, FieldError> {
        let title = optional(&conversation.title, "title", Title::parse)
            .map_err(|error| error.below("conversation"))?;
        let metadata = self
            .metadata(conversation.metadata, "metadata")
            .map_err(|error| error.below("conversation"))?;
        let paths = mask.map(|mask| mask.paths).unwrap_or_default();
        if paths.is_empty() {
            if title.is_none() && metadata.is_none() {
                let reason =
                    InvalidValue::new("must name title or metadata, or one of them be set");
                return Err(FieldError::new("update_mask", reason));
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
                    let reason = InvalidValue::new("may name title and metadata only");
                    return Err(FieldError::new("update_mask", reason));
                }
            }
        }
        Ok(changes)
    }
}

fn unique_ids(messages: &[NewMessage]) -> Result<(), FieldError> {
    let mut seen = std::collections::HashSet::with_capacity(messages.len());
    match messages.iter().position(|message| !seen.insert(message.id)) {
        None => Ok(()),
        Some(at) => Err(FieldError::new(
            format!("messages[{at}].id"),
            InvalidValue::new("is the id of an earlier message of this request"),
        )),
    }
}

/// A role, where it may be missing.
pub(crate) fn optional_role(number: i32) -> Result<Option<Role>, FieldError> {
    (number != proto::Role::Unspecified as i32)
        .then(|| role(number))
        .transpose()
}

fn role(role: i32) -> Result<Role, FieldError> {
    match proto::Role::try_from(role) {
        Ok(proto::Role::User) => Ok(Role::User),
        Ok(proto::Role::Assistant) => Ok(Role::Assistant),
        Ok(proto::Role::System) => Ok(Role::System),
        Ok(proto::Role::Tool) => Ok(Role::Tool),
        Ok(proto::Role::Unspecified) => {
            Err(FieldError::new("role", InvalidValue::new("is required")))
        }
        Err(_) => Err(FieldError::new(
            "role",
            InvalidValue::new("is no known role"),
        )),
    }
}

fn count(count: Option<i32>, path: &str) -> Result<Option<i32>, FieldError> {
    match count {
        Some(count) if count < 0 => Err(FieldError::new(path, negative())),
        count => Ok(count),
    }
}

/// Times that protobuf allows, years 1 to 9999, cut to the microsecond.
fn time(timestamp: Timestamp) -> Result<DateTime<Utc>, InvalidValue> {
    const YEARS_1_TO_9999: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let micros = u32::try_from(timestamp.nanos).map(|nanos| nanos / 1000 * 1000);
    match micros {
        Ok(nanos) if nanos < 1_000_000_000 && YEARS_1_TO_9999.contains(&timestamp.seconds) => {
            DateTime::from_timestamp(timestamp.seconds, nanos)
        }
        _ => None,
    }
    .ok_or_else(|| InvalidValue::new("must be a time of the years 1 to 9999"))
}

fn not_negative(number: i64) -> Result<i64, InvalidValue> {
    if number < 0 {
        return Err(negative());
    }
    Ok(number)
}

fn negative() -> InvalidValue {
    InvalidValue::new("must not be negative")
}

fn clamp(number: i64, max: u32) -> u32 {
    u32::try_from(number).map_or(max, |number| number.min(max))
}
