//! Reads files back, as strictly as requests are read.

use std::marker::PhantomData;

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use serde_path_to_error::Segment;
use uuid::Uuid;

use super::{
    Format, NAME, VERSION,
    split::{Part, Place, Splitter},
};
use crate::domain::{
    Content, Context, ConversationId, DeptId, InvalidValue, Limits, MessageId, Metadata,
    NewMessage, Numbered, Role, Title, UserId, to_micros,
};

/// How many times its own bytes a text can have as JSON.
const LONGEST_ESCAPE: usize = 6;

/// The highest number that a file may give. No conversation comes so far, and one
/// that begins there still has as many to go before Lua and JavaScript lose count.
const MAX_SEQ: i64 = 1 << 52;

/// How many times the largest metadata a part may have before the conversation is
/// known: until then nothing limits how many files are read at once.
const HEADER: usize = 8;
/// And what there is beside it.
const HEADER_TEXTS: usize = 16 << 10;

pub(super) const UNKNOWN_MEMBER: &str = "has a member that the format does not have";

/// Where a file is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: u64,
    /// The member on it, such as `contexts[0].score`; empty for the line itself.
    pub field: String,
    /// What is wrong with it. Never repeats it.
    pub reason: InvalidValue,
}

impl BadLine {
    pub(super) fn new(line: u64, field: impl Into<String>, reason: InvalidValue) -> Self {
        Self {
            line,
            field: field.into(),
            reason,
        }
    }
}

/// What a file says of its conversation. Whatever is None was not said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Whose it is.
    pub user_id: Option<UserId>,
    /// The user's department.
    pub dept_id: Option<DeptId>,
    /// What it is called.
    pub title: Option<Title>,
    /// The last number that was given.
    pub last_seq: Option<i64>,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// Anything else.
    pub metadata: Option<Metadata>,
}

/// What a file has, in this order: its conversation, then messages.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// The conversation.
    Conversation(Box<Header>),
    /// A message.
    Message(Box<Numbered>),
}

/// Reads a file that comes in pieces. It keeps no more than the piece and the
/// message that it is in.
pub struct Reader {
    splitter: Splitter,
    limits: Limits,
    max_message_bytes: usize,
    new_id: Box<dyn Fn() -> Uuid + Send>,
    seen: Seen,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// What of a file has been read.
#[derive(Debug, Default)]
struct Seen {
    format: bool,
    version: bool,
    conversation: bool,
    /// The last number that the file says there is.
    stated_last: Option<i64>,
    last_seq: i64,
}

impl Reader {
    /// Reads a file of this format, or for None of whichever it is, whose messages
    /// get ids from `new_id`. A message may have [`NewMessage::size`] `max_message_bytes`.
    pub fn new(
        format: Option<Format>,
        limits: Limits,
        max_message_bytes: usize,
        new_id: Box<dyn Fn() -> Uuid + Send>,
    ) -> Result<Self, InvalidValue> {
        let max = HEADER_TEXTS + limits.metadata_bytes.saturating_mul(HEADER);
        let splitter = match format {
            None => Splitter::document_or_lines(max),
            Some(Format::Json) => Splitter::document(max),
            Some(Format::JsonLines) => Splitter::lines(max),
            Some(Format::Csv) => {
                return Err(InvalidValue::new("must be JSON or JSONL: CSV is not read"));
            }
        };
        Ok(Self {
            splitter,
            limits,
            max_message_bytes,
            new_id,
            seen: Seen::default(),
        })
    }

    /// Takes the next piece of the file. [`Self::read_next`] has used up the one before.
    pub fn push(&mut self, piece: Bytes) {
        self.splitter.push(piece);
    }

    /// The next item of the pieces so far.
    pub fn read_next(&mut self) -> Result<Option<Item>, BadLine> {
        while let Some(part) = self.splitter.next()? {
            if let Some(item) = self.read(&part)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The last item, if the file does not end with a line's end. After it, or when
    /// there is none, [`Self::last_seq`] is the conversation's.
    pub fn end(&mut self) -> Result<Option<Item>, BadLine> {
        let last = self.splitter.end()?;
        let line = last.as_ref().map_or(1, |part| part.line);
        let item = last.map(|part| self.read(&part)).transpose()?.flatten();
        for (is_there, name) in [
            (self.seen.conversation, "conversation"),
            (self.seen.format, "format"),
            (self.seen.version, "version"),
        ] {
            if !is_there {
                return Err(BadLine::new(line, name, InvalidValue::new("is required")));
            }
        }
        Ok(item)
    }

    /// The last number of the conversation, once all is read.
    pub fn last_seq(&self) -> i64 {
        self.seen.stated_last.unwrap_or(self.seen.last_seq)
    }

    fn read(&mut self, part: &Part) -> Result<Option<Item>, BadLine> {
        let read = match &part.place {
            Place::Line if !self.seen.conversation => self.header_line(&part.json),
            Place::Line => self.message(&part.json).map(Some),
            Place::Item if self.seen.conversation => self.message(&part.json).map(Some),
            Place::Item => Err(Wrong::field("messages", "must come after conversation")),
            Place::Member(name) => self.member(name, &part.json),
        };
        read.map_err(|wrong| wrong.on(part.line))
    }

    fn header_line(&mut self, json: &[u8]) -> Result<Option<Item>, Wrong> {
        let Object(HeaderLine {
            format,
            version,
            conversation: Object(conversation),
        }) = parse(json)?;
        self.format(&format)?;
        self.version(version)?;
        self.conversation(conversation).map(Some)
    }

    fn member(&mut self, name: &[u8], json: &[u8]) -> Result<Option<Item>, Wrong> {
        let name: String = parse(name)?;
        let within = |wrong: Wrong| wrong.below(&name);
        match name.as_str() {
            "format" => self.format(&parse::<String>(json).map_err(within)?)?,
            "version" => self.version(parse(json).map_err(within)?)?,
            "conversation" => {
                let Object(fields) = parse(json).map_err(within)?;
                return self.conversation(fields).map(Some);
            }
            "messages" if json.trim_ascii_end() == b"null" => {}
            "messages" => return Err(Wrong::field("messages", "must be a list")),
            _ => return Err(Wrong::field("", UNKNOWN_MEMBER)),
        }
        Ok(None)
    }

    fn format(&mut self, format: &str) -> Result<(), Wrong> {
        once(&mut self.seen.format, "format")?;
        if format != NAME {
            let reason = InvalidValue::new(format!("must be \"{NAME}\""));
            return Err(Wrong::Field("format".to_owned(), reason));
        }
        Ok(())
    }

    fn version(&mut self, version: u32) -> Result<(), Wrong> {
        once(&mut self.seen.version, "version")?;
        if version != VERSION {
            let reason = InvalidValue::new(format!("must be {VERSION}: no other is known"));
            return Err(Wrong::Field("version".to_owned(), reason));
        }
        Ok(())
    }

    fn conversation(&mut self, fields: ConversationFields<'_>) -> Result<Item, Wrong> {
        once(&mut self.seen.conversation, "conversation")?;
        let header = fields.read(&self.limits);
        let header = header.map_err(|wrong| wrong.below("conversation"))?;
        self.seen.stated_last = header.last_seq;
        let longest = self.max_message_bytes.saturating_mul(LONGEST_ESCAPE);
        self.splitter.set_max(longest);
        Ok(Item::Conversation(Box::new(header)))
    }

    fn message(&mut self, json: &[u8]) -> Result<Item, Wrong> {
        let Object(fields): Object<MessageFields<'_>> = parse(json)?;
        let seq = fields.seq.unwrap_or(self.seen.last_seq + 1);
        if seq <= self.seen.last_seq {
            return Err(Wrong::field("seq", "must be higher than the one before"));
        }
        if self.seen.stated_last.is_some_and(|last| seq > last) {
            return Err(Wrong::field(
                "seq",
                "must be at most the conversation's last_seq",
            ));
        }
        in_field("seq", last_seq(seq))?;
        self.seen.last_seq = seq;
        let message = fields.read(&self.limits, (self.new_id)())?;
        if message.size() > self.max_message_bytes {
            let max = self.max_message_bytes;
            let reason = InvalidValue::new(format!("has a message of more than {max} bytes"));
            return Err(Wrong::Field(String::new(), reason));
        }
        Ok(Item::Message(Box::new(Numbered { seq, message })))
    }
}

fn once(seen: &mut bool, name: &'static str) -> Result<(), Wrong> {
    if std::mem::replace(seen, true) {
        return Err(Wrong::field(name, "is given twice"));
    }
    Ok(())
}

/// What is wrong with a part.
enum Wrong {
    /// It is no JSON. How many lines into it that shows.
    Syntax(u64),
    /// A member, by its path, and why.
    Field(String, InvalidValue),
}

impl Wrong {
    fn field(path: &str, reason: &'static str) -> Self {
        Self::Field(path.to_owned(), InvalidValue::new(reason))
    }

    fn below(self, parent: &str) -> Self {
        if parent.is_empty() {
            return self;
        }
        match self {
            Self::Field(path, reason) if path.is_empty() => Self::Field(parent.to_owned(), reason),
            Self::Field(path, reason) => Self::Field(format!("{parent}.{path}"), reason),
            syntax @ Self::Syntax(_) => syntax,
        }
    }

    fn on(self, line: u64) -> BadLine {
        match self {
            Self::Syntax(further) => {
                BadLine::new(line + further, "", InvalidValue::new("is not valid JSON"))
            }
            Self::Field(path, reason) => BadLine::new(line, path, reason),
        }
    }
}

/// An object. What derives Deserialize would take a list of its values as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Wrong> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let segments: Vec<&Segment> = error.path().iter().collect();
        wrong(&segments, error.inner())
    })?;
    match deserializer.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(wrong(&[], &error)),
    }
}

/// Says what is wrong without what the library quotes of the file.
fn wrong(segments: &[&Segment], error: &serde_json::Error) -> Wrong {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(text, _)| text);
    let path = path(segments);
    if text == "number out of range" {
        return Wrong::Field(path, InvalidValue::new("must be a finite number"));
    }
    if error.classify() != serde_json::error::Category::Data {
        return Wrong::Syntax((error.line() as u64).saturating_sub(1));
    }
    // Only names of the format's own stand there.
    let name = |prefix| text.strip_prefix(prefix)?.strip_suffix('`');
    if let Some(name) = name("missing field `") {
        return Wrong::field(name, "is required").below(&path);
    }
    if let Some(name) = name("duplicate field `") {
        return Wrong::field(name, "is given twice").below(&path);
    }
    if text.starts_with("unknown field `") {
        // The path ends with a name that is the caller's, however long.
        return Wrong::field("", UNKNOWN_MEMBER).below(&self::path(parent(segments)));
    }
    let expected = match text
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected)
    {
        Some("i64" | "i32" | "u32") => "a whole number in its range".to_owned(),
        Some("f64") => "a number".to_owned(),
        Some(expected) => expected.to_owned(),
        None => "what the format says".to_owned(),
    };
    Wrong::Field(path, InvalidValue::new(format!("must be {expected}")))
}

fn parent<'s, 'a>(segments: &'s [&'a Segment]) -> &'s [&'a Segment] {
    segments.split_last().map_or(segments, |(_, parent)| parent)
}

fn path(segments: &[&Segment]) -> String {
    let mut path = String::new();
    for segment in segments {
        path = match segment {
            Segment::Seq { index } => format!("{path}[{index}]"),
            Segment::Map { key } if path.is_empty() => key.clone(),
            Segment::Map { key } => format!("{path}.{key}"),
            Segment::Enum { .. } | Segment::Unknown => path,
        };
    }
    path
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine<'a> {
    format: String,
    version: u32,
    #[serde(borrow)]
    conversation: Object<ConversationFields<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConversationFields<'a> {
    id: Option<String>,
    user_id: Option<String>,
    dept_id: Option<String>,
    title: Option<String>,
    last_seq: Option<i64>,
    created_at: Option<String>,
    updated_at: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageFields<'a> {
    seq: Option<i64>,
    id: Option<String>,
    role: String,
    content: String,
    tokens_used: Option<i32>,
    latency_ms: Option<i32>,
    created_at: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, default)]
    contexts: Contexts<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFields<'a> {
    doc_id: String,
    content: String,
    score: Option<f64>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// No more than a message may have, so that a list of nothings takes no memory.
#[derive(Default)]
struct Contexts<'a>(Vec<ContextFields<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Contexts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Contexts<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a list of at most {} objects", NewMessage::MAX_CONTEXTS)
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Contexts::default())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut contexts = Vec::new();
                while let Some(Object(context)) = seq.next_element()? {
                    if contexts.len() == NewMessage::MAX_CONTEXTS {
                        return Err(de::Error::invalid_length(contexts.len() + 1, &self));
                    }
                    contexts.push(context);
                }
                Ok(Contexts(contexts))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl ConversationFields<'_> {
    fn read(self, limits: &Limits) -> Result<Header, Wrong> {
        // A conversation gets an id of its own; one that is none is a mistake.
        optional(self.id, "id", |id| ConversationId::parse(&id))?;
        Ok(Header {
            user_id: optional(self.user_id, "user_id", UserId::parse)?,
            dept_id: optional(self.dept_id, "dept_id", DeptId::parse)?,
            title: optional(self.title, "title", Title::parse)?,
            last_seq: optional(self.last_seq, "last_seq", last_seq)?,
            created_at: optional(self.created_at, "created_at", |text| time(&text))?,
            updated_at: optional(self.updated_at, "updated_at", |text| time(&text))?,
            metadata: metadata(self.metadata, limits)?,
        })
    }
}

impl MessageFields<'_> {
    fn read(self, limits: &Limits, id: Uuid) -> Result<NewMessage, Wrong> {
        optional(self.id, "id", |id| MessageId::parse(&id))?;
        let metadata = metadata(self.metadata, limits)?;
        if self.content.is_empty() && metadata.as_ref().is_none_or(Metadata::is_empty) {
            return Err(Wrong::field(
                "content",
                "is required where there is no metadata",
            ));
        }
        let role = Role::from_name(&self.role)
            .ok_or_else(|| Wrong::field("role", "must be user, assistant, system or tool"))?;
        // Counted as it is read, and before any more is.
        let mut weight = metadata.as_ref().map_or(0, Metadata::weight);
        let contexts = (0..).zip(self.contexts.0).map(|(at, context): (u32, _)| {
            let context = context
                .read(limits)
                .map_err(|wrong| wrong.below(&format!("contexts[{at}]")))?;
            weight += context.metadata.as_ref().map_or(0, Metadata::weight);
            if weight > NewMessage::MAX_VALUES_PER_SAVE {
                return Err(Wrong::field(
                    "contexts",
                    "have too many values in their metadata",
                ));
            }
            Ok(context)
        });
        Ok(NewMessage {
            id: MessageId::from_uuid(id),
            id_chosen: false,
            role,
            content: in_field("content", Content::parse(self.content, limits))?,
            tokens_used: optional(self.tokens_used, "tokens_used", count)?,
            latency_ms: optional(self.latency_ms, "latency_ms", count)?,
            created_at: optional(self.created_at, "created_at", |text| time(&text))?,
            metadata,
            contexts: contexts.collect::<Result<_, _>>()?,
        })
    }
}

impl ContextFields<'_> {
    fn read(self, limits: &Limits) -> Result<Context, Wrong> {
        Ok(Context {
            doc_id: in_field("doc_id", Context::parse_doc_id(self.doc_id))?,
            content: in_field("content", Content::parse(self.content, limits))?,
            // JSON has no number that is not finite.
            score: self.score,
            metadata: metadata(self.metadata, limits)?,
        })
    }
}

fn in_field<T>(name: &str, parsed: Result<T, InvalidValue>) -> Result<T, Wrong> {
    parsed.map_err(|reason| Wrong::Field(name.to_owned(), reason))
}

fn optional<T, U>(
    value: Option<T>,
    name: &str,
    parse: impl FnOnce(T) -> Result<U, InvalidValue>,
) -> Result<Option<U>, Wrong> {
    in_field(name, value.map(parse).transpose())
}

fn metadata(json: Option<&RawValue>, limits: &Limits) -> Result<Option<Metadata>, Wrong> {
    optional(json, "metadata", |json| {
        Metadata::from_json(json.get(), limits.metadata_bytes)
    })
}

fn last_seq(seq: i64) -> Result<i64, InvalidValue> {
    if !(0..=MAX_SEQ).contains(&seq) {
        return Err(InvalidValue::new(format!("must be 0 to {MAX_SEQ}")));
    }
    Ok(seq)
}

fn count(count: i32) -> Result<i32, InvalidValue> {
    if count < 0 {
        return Err(InvalidValue::new("must not be negative"));
    }
    Ok(count)
}

fn time(text: &str) -> Result<DateTime<Utc>, InvalidValue> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| to_micros(time.to_utc()));
    time.ok()
        .filter(|time| (1..=9999).contains(&time.year()))
        .ok_or_else(|| InvalidValue::new("must be a time as in RFC 3339, of the years 1 to 9999"))
}

#[cfg(test)]
mod tests;
