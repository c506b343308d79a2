//! Objects of the JSON formats, for writing and for reading.

use std::{borrow::Cow, marker::PhantomData};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use super::{
    ConversationHeader, FORMAT_NAME, FORMAT_VERSION,
    error::ElementError,
    parts::{PartObject, parse_parts},
};
use domain::{
    Conversation, ConversationId, DeptId, FieldError, InField as _, InvalidValue, Limits, Message,
    MessageId, Metadata, NewMessage, Part, RawContext, RawMessage, RetrievedContext, Role, Title,
    UserId, from_rfc3339,
};

/// Upper bound on the numbers of a file. No conversation reaches it, and a conversation that
/// begins there can assign as many further numbers before Lua and JavaScript lose precision.
pub(super) const MAX_SEQ: i64 = 1 << 52;

/// Metadata in a file that is read. It is parsed only once its object is known to be
/// valid, since values in memory take far more bytes than in the file.
type UnparsedJson<'a> = &'a RawValue;

/// Header of a file: the format, its version, and the conversation. `M` is the type of
/// metadata, which differs between writing and reading.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeaderObject<'a, M> {
    pub(super) format: Cow<'a, str>,
    pub(super) version: u32,
    pub(super) conversation: JsonObject<ConversationObject<'a, M>>,
}

/// Conversation of a file. It has no session, which is temporary, and no parent: a branch is
/// exported with all messages that it contains.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConversationObject<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dept_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
}

/// Message of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageObject<'a, M> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    role: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    content: Cow<'a, str>,
    #[serde(
        default = "BoundedList::default",
        skip_serializing_if = "BoundedList::is_empty"
    )]
    parts: BoundedList<PartObject<'a>, { Part::MAX_PER_MESSAGE }>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_count: Option<i32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    redacted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_used: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
    #[serde(
        default = "BoundedList::default",
        skip_serializing_if = "BoundedList::is_empty"
    )]
    contexts: ContextList<'a, M>,
}

/// Contexts of a message.
type ContextList<'a, M> = BoundedList<ContextObject<'a, M>, { NewMessage::MAX_CONTEXTS }>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContextObject<'a, M> {
    doc_id: Cow<'a, str>,
    content: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<M>,
}

/// List of objects. Reading keeps one more than `MAX`, which a message may have: enough for the
/// domain to reject the message, while a long list occupies no memory.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct BoundedList<T, const MAX: usize>(Vec<T>);

/// JSON object. A derived `Deserialize` accepts a list of the fields' values as well.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct JsonObject<T>(pub(super) T);

/// Parses one JSON value that takes up all of `json`.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ElementError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Formats a time as files contain it.
pub(super) fn format_time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Validates a number of a file.
pub(super) fn parse_seq(seq: i64) -> Result<i64, InvalidValue> {
    if !(0..=MAX_SEQ).contains(&seq) {
        return Err(InvalidValue::new(format!("must be 0 to {MAX_SEQ}")));
    }
    Ok(seq)
}

impl<'a> HeaderObject<'a, &'a Metadata> {
    pub(super) fn new(conversation: &'a Conversation) -> Self {
        Self {
            format: FORMAT_NAME.into(),
            version: FORMAT_VERSION,
            conversation: JsonObject(ConversationObject {
                id: Some(conversation.id.to_string().into()),
                user_id: Some(conversation.user_id.as_str().into()),
                dept_id: conversation.dept_id.as_ref().map(|id| id.as_str().into()),
                title: conversation
                    .title
                    .as_ref()
                    .map(|title| title.as_str().into()),
                last_seq: Some(conversation.last_seq),
                created_at: Some(format_time(conversation.created_at).into()),
                updated_at: Some(format_time(conversation.updated_at).into()),
                metadata: conversation.metadata.as_ref(),
            }),
        }
    }
}

impl<'a> MessageObject<'a, &'a Metadata> {
    pub(super) fn new(message: &'a Message) -> Self {
        Self {
            seq: Some(message.seq),
            id: Some(message.id.to_string().into()),
            role: message.role.as_str().into(),
            name: message.name.as_ref().map(|name| name.as_str().into()),
            content: message.content.as_str().into(),
            parts: BoundedList(message.raw_parts().into_iter().map(Into::into).collect()),
            token_count: message.token_count,
            pinned: message.pinned,
            redacted: message.redacted,
            tokens_used: message.tokens_used,
            latency_ms: message.latency_ms,
            created_at: Some(format_time(message.created_at).into()),
            metadata: message.metadata.as_ref(),
            contexts: context_list(&message.contexts),
        }
    }
}

/// Contexts of a message for writing.
pub(super) fn context_list(contexts: &[RetrievedContext]) -> ContextList<'_, &Metadata> {
    let contexts = contexts.iter().map(|context| ContextObject {
        doc_id: context.doc_id.as_str().into(),
        content: context.content.as_str().into(),
        score: context.score,
        metadata: context.metadata.as_ref(),
    });
    BoundedList(contexts.collect())
}

impl<T, const MAX: usize> BoundedList<T, MAX> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T, const MAX: usize> Default for BoundedList<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl ConversationObject<'_, UnparsedJson<'_>> {
    pub(super) fn validate(self, limits: &Limits) -> Result<ConversationHeader, FieldError> {
        Ok(ConversationHeader {
            // An import that generates ids validates this one, too: an invalid one is a mistake.
            id: optional(self.id, "id", |id| ConversationId::parse(&id))?,
            user_id: optional(self.user_id, "user_id", UserId::parse)?,
            dept_id: optional(self.dept_id, "dept_id", DeptId::parse)?,
            title: optional(self.title, "title", Title::parse)?,
            last_seq: optional(self.last_seq, "last_seq", parse_seq)?,
            created_at: optional(self.created_at, "created_at", |text| from_rfc3339(&text))?,
            updated_at: optional(self.updated_at, "updated_at", |text| from_rfc3339(&text))?,
            metadata: parse_metadata(self.metadata, limits)?,
        })
    }
}

impl MessageObject<'_, UnparsedJson<'_>> {
    /// Validates the message, which gets a generated id unless `keep_id` is set and it has one.
    pub(super) fn validate(
        self,
        limits: &Limits,
        keep_id: bool,
        generate_id: impl FnOnce() -> MessageId,
    ) -> Result<NewMessage, FieldError> {
        let id = optional(self.id, "id", |id| MessageId::parse(&id))?;
        let raw = RawMessage {
            id: id.filter(|_| keep_id),
            role: Role::parse(&self.role).in_field("role")?,
            name: self.name.map(Cow::into_owned).unwrap_or_default(),
            content: self.content.into_owned(),
            parts: parse_parts(self.parts.0)?,
            token_count: self.token_count,
            pinned: self.pinned,
            redacted: self.redacted,
            tokens_used: self.tokens_used,
            latency_ms: self.latency_ms,
            created_at: optional(self.created_at, "created_at", |text| from_rfc3339(&text))?,
            metadata: parse_metadata(self.metadata, limits)?,
        };
        let contexts = self.contexts.0.into_iter().map(|context| {
            Ok(RawContext {
                doc_id: context.doc_id.into_owned(),
                content: context.content.into_owned(),
                score: context.score,
                metadata: parse_metadata(context.metadata, limits)?,
            })
        });
        NewMessage::new(raw, contexts, generate_id, limits)
    }
}

fn optional<T, U>(
    value: Option<T>,
    field: &str,
    parse: impl FnOnce(T) -> Result<U, InvalidValue>,
) -> Result<Option<U>, FieldError> {
    value.map(parse).transpose().in_field(field)
}

fn parse_metadata(
    json: Option<UnparsedJson<'_>>,
    limits: &Limits,
) -> Result<Option<Metadata>, FieldError> {
    optional(json, "metadata", |json| {
        Metadata::from_json(json.get(), limits.metadata_bytes)
    })
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = JsonObject<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(JsonObject)
            }
        }

        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedList<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> de::Visitor<'de> for Visitor<T, MAX> {
            type Value = BoundedList<T, MAX>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(BoundedList::default())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() <= MAX {
                    let Some(JsonObject(item)) = seq.next_element()? else {
                        return Ok(BoundedList(items));
                    };
                    items.push(item);
                }
                while seq.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(BoundedList(items))
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData))
    }
}
