//! Reads files back, with the same validation as requests.

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    ConversationHeader, FORMAT_NAME, FORMAT_VERSION, Format,
    error::{ElementError, LineError, UNKNOWN_MEMBER},
    schema::{ConversationObject, HeaderObject, JsonObject, MessageObject, parse, parse_seq},
    split::{Element, ElementKind, Splitter},
};
use domain::{
    FieldError, InField as _, InvalidValue, Limits, MessageId, NumberedMessage, SizeLimit,
};

/// Upper bound on the factor by which JSON escapes lengthen a text.
const MAX_ESCAPE_FACTOR: usize = 6;

/// Upper bound on an element before the conversation is known, as a multiple of the
/// largest metadata: until then the number of files that are read at once is not
/// limited.
const HEADER_METADATA_FACTOR: usize = 8;
/// Bytes that such an element may have in addition.
const HEADER_TEXT_BYTES: usize = 16 << 10;

/// Element of a file that has been read: the conversation, then its messages in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Conversation; the first record of every file.
    Conversation(Box<ConversationHeader>),
    /// Message.
    Message(Box<NumberedMessage>),
}

/// Reads a file that arrives in pieces. It keeps only the current piece and the current message
/// in memory.
pub struct ArchiveReader {
    splitter: Splitter,
    limits: Limits,
    max_message_bytes: usize,
    generate_id: Box<dyn Fn() -> Uuid + Send>,
    keep_ids: bool,
    progress: Progress,
}

impl std::fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveReader").finish_non_exhaustive()
    }
}

/// Members of a file that have been read.
#[derive(Debug, Default)]
struct Progress {
    has_format: bool,
    has_version: bool,
    has_conversation: bool,
    /// Last number as the conversation's header states it.
    stated_last_seq: Option<i64>,
    /// Number of the newest message that was read.
    last_seq: i64,
}

impl ArchiveReader {
    /// Creates a reader of files in `format`; `None` detects JSON and JSON Lines.
    /// Messages get ids from `generate_id`, and may have `max_message_bytes` of
    /// [`domain::NewMessage::size`].
    ///
    /// # Errors
    ///
    /// Fails with [`InvalidValue`] for [`Format::Csv`] and [`Format::Markdown`], which cannot be read.
    pub fn new(
        format: Option<Format>,
        limits: Limits,
        max_message_bytes: usize,
        generate_id: Box<dyn Fn() -> Uuid + Send>,
    ) -> Result<Self, InvalidValue> {
        let metadata_bytes = limits.metadata_bytes.saturating_mul(HEADER_METADATA_FACTOR);
        let max = HEADER_TEXT_BYTES + metadata_bytes;
        let splitter = match format {
            None => Splitter::document_or_lines(max),
            Some(Format::Json) => Splitter::document(max),
            Some(Format::JsonLines) => Splitter::lines(max),
            Some(Format::Csv) => {
                return Err(InvalidValue::new(
                    "must be JSON or JSONL: CSV cannot be imported",
                ));
            }
            Some(Format::Markdown) => {
                return Err(InvalidValue::new(
                    "must be JSON or JSONL: Markdown cannot be imported",
                ));
            }
        };
        Ok(Self {
            splitter,
            limits,
            max_message_bytes,
            generate_id,
            keep_ids: false,
            progress: Progress::default(),
        })
    }

    /// Keeps the ids of messages that have one. [`ConversationHeader::id`] is always read.
    #[must_use]
    pub fn keep_ids(self, keep_ids: bool) -> Self {
        Self { keep_ids, ..self }
    }

    /// Adds the next piece of the file. [`Self::read_next`] must have consumed the
    /// previous one.
    pub fn push(&mut self, piece: Bytes) {
        self.splitter.push(piece);
    }

    /// Returns the next complete record, or `None` if another piece is needed.
    ///
    /// # Errors
    ///
    /// Fails with [`LineError`] if the file is invalid. The reader cannot be used after it.
    pub fn read_next(&mut self) -> Result<Option<Record>, LineError> {
        while let Some(element) = self.splitter.next()? {
            if let Some(record) = self.read(&element)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Ends the file, and returns the last record if no line break followed it.
    ///
    /// # Errors
    ///
    /// Fails with [`LineError`] if the file is invalid or incomplete.
    pub fn end(&mut self) -> Result<Option<Record>, LineError> {
        let last = self.splitter.end()?;
        let line = last.as_ref().map_or(1, |element| element.line);
        let record = last.map(|element| self.read(&element)).transpose()?;
        for (is_present, name) in [
            (self.progress.has_conversation, "conversation"),
            (self.progress.has_format, "format"),
            (self.progress.has_version, "version"),
        ] {
            if !is_present {
                return Err(ElementError::field(name, "is required").on_line(line));
            }
        }
        Ok(record.flatten())
    }

    /// Last number of the conversation, valid after [`Self::end`].
    pub fn last_seq(&self) -> i64 {
        self.progress
            .stated_last_seq
            .unwrap_or(self.progress.last_seq)
    }

    fn read(&mut self, element: &Element) -> Result<Option<Record>, LineError> {
        let json = &element.json;
        let record = match &element.kind {
            ElementKind::Line if !self.progress.has_conversation => self.read_header_line(json),
            ElementKind::Line => self.read_message(json).map(Some),
            ElementKind::ListItem if self.progress.has_conversation => {
                self.read_message(json).map(Some)
            }
            ElementKind::ListItem => Err(ElementError::field(
                "messages",
                "must come after conversation",
            )),
            ElementKind::Member { name } => self.read_member(name, json),
        };
        record.map_err(|error| error.on_line(element.line))
    }

    fn read_header_line(&mut self, json: &[u8]) -> Result<Option<Record>, ElementError> {
        let JsonObject(HeaderObject {
            format,
            version,
            conversation: JsonObject(conversation),
        }) = parse(json)?;
        self.check_format(&format)?;
        self.check_version(version)?;
        self.read_conversation(conversation).map(Some)
    }

    fn read_member(&mut self, name: &[u8], json: &[u8]) -> Result<Option<Record>, ElementError> {
        let name: String = parse(name)?;
        let in_member = |error: ElementError| error.below(&name);
        match name.as_str() {
            "format" => self.check_format(&parse::<String>(json).map_err(in_member)?)?,
            "version" => self.check_version(parse(json).map_err(in_member)?)?,
            "conversation" => {
                let JsonObject(conversation) = parse(json).map_err(in_member)?;
                return self.read_conversation(conversation).map(Some);
            }
            "messages" if json.trim_ascii_end() == b"null" => {}
            "messages" => return Err(ElementError::field("messages", "must be a list")),
            _ => return Err(ElementError::field("", UNKNOWN_MEMBER)),
        }
        Ok(None)
    }

    fn check_format(&mut self, format: &str) -> Result<(), ElementError> {
        reject_second(&mut self.progress.has_format, "format")?;
        if format != FORMAT_NAME {
            let reason = InvalidValue::new(format!("must be \"{FORMAT_NAME}\""));
            return Err(FieldError::new("format", reason).into());
        }
        Ok(())
    }

    fn check_version(&mut self, version: u32) -> Result<(), ElementError> {
        reject_second(&mut self.progress.has_version, "version")?;
        if version != FORMAT_VERSION {
            let reason = format!("must be {FORMAT_VERSION}: other versions are not supported");
            return Err(FieldError::new("version", InvalidValue::new(reason)).into());
        }
        Ok(())
    }

    fn read_conversation(
        &mut self,
        conversation: ConversationObject<'_, &RawValue>,
    ) -> Result<Record, ElementError> {
        reject_second(&mut self.progress.has_conversation, "conversation")?;
        let header = conversation.validate(&self.limits);
        let header = header.map_err(|error| error.below("conversation"))?;
        self.progress.stated_last_seq = header.last_seq;
        let max_element_bytes = self.max_message_bytes.saturating_mul(MAX_ESCAPE_FACTOR);
        self.splitter.begin_messages(max_element_bytes);
        Ok(Record::Conversation(Box::new(header)))
    }

    fn read_message(&mut self, json: &[u8]) -> Result<Record, ElementError> {
        let JsonObject(object): JsonObject<MessageObject<'_, &RawValue>> = parse(json)?;
        let seq = self.next_seq(object.seq).in_field("seq")?;
        self.progress.last_seq = seq;
        let generate_id = || MessageId::from_uuid((self.generate_id)());
        let message = object.validate(&self.limits, self.keep_ids, generate_id)?;
        if message.size() + message.blob_bytes() > self.max_message_bytes {
            let max = self.max_message_bytes;
            let reason = format_args!("has a message of more than {max} bytes");
            let reason = InvalidValue::exceeds(SizeLimit::Request, reason);
            return Err(FieldError::new("", reason).into());
        }
        Ok(Record::Message(Box::new(NumberedMessage { seq, message })))
    }

    /// Validates the number of the next message; a message without one follows the
    /// previous message.
    fn next_seq(&self, stated: Option<i64>) -> Result<i64, InvalidValue> {
        let seq = stated.unwrap_or(self.progress.last_seq + 1);
        if seq <= self.progress.last_seq {
            return Err(InvalidValue::new("must be higher than the previous one"));
        }
        if self.progress.stated_last_seq.is_some_and(|last| seq > last) {
            return Err(InvalidValue::new(
                "must be at most the conversation's last_seq",
            ));
        }
        parse_seq(seq)
    }
}

/// Marks a member as present, and rejects it if it was present already.
fn reject_second(is_present: &mut bool, name: &str) -> Result<(), ElementError> {
    if std::mem::replace(is_present, true) {
        return Err(ElementError::field(name, "is given twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
