//! Reads a file conversation by conversation.

use std::{
    io::{self, Read},
    thread,
};

use serde_json::Value;

use super::{
    Format, ImportedConversation, MAX_CONVERSATION_BYTES, MAX_CONVERSATION_DEPTH,
    MAX_CONVERSATION_VALUES, archives,
    conversion::{self, ImportOptions},
    detection,
    elements::{Element, ElementLimits, Elements, Event, ExceededLimit},
    formats, parse,
};

const LIMITS: ElementLimits = ElementLimits {
    bytes: MAX_CONVERSATION_BYTES,
    values: MAX_CONVERSATION_VALUES,
};

/// Stack of a thread that reads a value without nested values.
const STACK_BYTES: usize = 2 << 20;

/// Additional stack of such a thread for each level of nested values.
const STACK_BYTES_OF_LEVEL: usize = 8 << 10;

/// Formats, for error texts.
const EXPECTED: &str =
    "a conversation of ChatGPT, Claude, ShareGPT, OpenAI, LibreChat or Open WebUI";

/// Result of one conversation of a file.
#[derive(Debug)]
pub enum Outcome {
    /// It can be imported.
    Converted(Box<ImportedConversation>),
    /// An archive of this service, with its bytes in UTF-8.
    Archive(Vec<u8>),
    /// It cannot be imported.
    Rejected(Rejection),
}

/// Conversation that cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Id in the file, if there is one.
    pub source_id: Option<String>,
    /// Reason, without content of messages.
    pub reason: String,
}

/// Reader of a file. An iterator of the conversations in the order of the file; an error of reading
/// ends it.
#[derive(Debug)]
pub struct ConversationReader<R> {
    elements: Elements<R>,
    format: Option<Format>,
    options: ImportOptions,
    list: List,
    is_ended: bool,
}

/// List that is being read.
#[derive(Debug, Default)]
enum List {
    /// None, or one whose elements are conversations.
    #[default]
    OfConversations,
    /// One whose first element has not been read.
    Begun,
    /// One whose elements are the messages of one conversation.
    OfMessages {
        messages: Vec<Value>,
        bytes: usize,
        values: usize,
        error: Option<String>,
    },
}

impl<R: Read> ConversationReader<R> {
    /// Creates a reader. `format` is the one that the user named; `None` detects it for each
    /// conversation.
    pub fn new(input: R, format: Option<Format>, options: ImportOptions) -> Self {
        Self {
            elements: Elements::new(input, LIMITS),
            format,
            options,
            list: List::default(),
            is_ended: false,
        }
    }

    /// The next event of the file as a conversation; `None` if it is none by itself.
    fn take(&mut self, event: Event) -> Option<Outcome> {
        match event {
            Event::ListStart => {
                self.list = List::Begun;
                None
            }
            Event::ListEnd => self.end_list(None),
            Event::Truncated => {
                let reason = "the file ends within a conversation or a list: it was cut off";
                self.end_list(Some(reason))
                    .or_else(|| Some(rejected(None, reason)))
            }
            Event::TooLarge(limit) => {
                let reason = too_large(limit);
                if let List::OfMessages { error, .. } = &mut self.list {
                    error.get_or_insert(reason);
                    return None;
                }
                Some(rejected(None, &reason))
            }
            Event::Value(element) if element.depth > parse::MAX_DEPTH => self.deep(&element),
            Event::Value(element) => self.value(&element),
        }
    }

    /// A value that is nested deeper than the stack of this thread may allow.
    fn deep(&mut self, element: &Element) -> Option<Outcome> {
        let depth = element.depth;
        if let List::OfMessages { error, .. } = &mut self.list {
            error.get_or_insert_with(|| too_deep(parse::MAX_DEPTH));
            return None;
        }
        self.list = List::OfConversations;
        if depth > MAX_CONVERSATION_DEPTH {
            return Some(rejected(None, &too_deep(MAX_CONVERSATION_DEPTH)));
        }
        let (format, options) = (self.format, &self.options);
        let convert = || match parse::deep_value(&element.text) {
            Ok(value) => convert(format, options, &value),
            Err(reason) => rejected(None, &reason),
        };
        let builder = thread::Builder::new().stack_size(STACK_BYTES + depth * STACK_BYTES_OF_LEVEL);
        let outcome = thread::scope(|scope| {
            let thread = builder.spawn_scoped(scope, convert).ok()?;
            thread.join().ok()
        });
        let reason = "is nested so deeply that there is not enough memory to read it";
        Some(outcome.unwrap_or_else(|| rejected(None, reason)))
    }

    fn value(&mut self, element: &Element) -> Option<Outcome> {
        let text = &element.text;
        let parsed = parse::value(text);
        if let Ok(value) = &parsed
            && archives::is_archive(value)
        {
            return self.archive(text, value);
        }
        if matches!(self.list, List::Begun) {
            let is_message = parsed.as_ref().is_ok_and(|value| {
                let found = detection::format_of_message(value);
                found.is_some_and(|found| self.format.is_none_or(|format| format == found))
            });
            self.list = if is_message {
                List::OfMessages {
                    messages: Vec::new(),
                    bytes: 0,
                    values: 0,
                    error: None,
                }
            } else {
                List::OfConversations
            };
        }
        if let List::OfMessages {
            messages,
            bytes,
            values,
            error,
        } = &mut self.list
        {
            *bytes += text.len();
            *values += element.values;
            let exceeded = if *bytes > LIMITS.bytes {
                Some(ExceededLimit::Bytes)
            } else {
                (*values > LIMITS.values).then_some(ExceededLimit::Values)
            };
            match (parsed, exceeded) {
                (Ok(message), None) => messages.push(message),
                (_, Some(limit)) => {
                    error.get_or_insert_with(|| too_large(limit));
                    *messages = Vec::new();
                }
                (Err(reason), None) => {
                    error.get_or_insert(reason);
                }
            }
            return None;
        }
        Some(match parsed {
            Ok(value) => convert(self.format, &self.options, &value),
            Err(reason) => rejected(None, &reason),
        })
    }

    /// An archive within a file of another form, or with its `format` at its end.
    fn archive(&mut self, text: &[u8], value: &Value) -> Option<Outcome> {
        const LINES: &str = "is an archive of this service without messages. Archives in the form of JSON \
            Lines must be files of their own, whose first line begins with format";
        match &mut self.list {
            List::OfMessages { error, .. } => {
                error
                    .get_or_insert("is a list of messages and archives of this service".to_owned());
                return None;
            }
            List::Begun => self.list = List::OfConversations,
            List::OfConversations => {}
        }
        Some(if value.get("messages").is_some() {
            Outcome::Archive(text.to_vec())
        } else {
            rejected(None, LINES)
        })
    }

    fn end_list(&mut self, truncated: Option<&str>) -> Option<Outcome> {
        let ended = std::mem::take(&mut self.list);
        let List::OfMessages {
            messages, error, ..
        } = ended
        else {
            return None;
        };
        match error.as_deref().or(truncated) {
            Some(reason) => Some(rejected(None, reason)),
            None => Some(convert(self.format, &self.options, &Value::Array(messages))),
        }
    }
}

/// Converts a value. `named` is the format that the user named.
fn convert(named: Option<Format>, options: &ImportOptions, value: &Value) -> Outcome {
    let found = detection::format_of(value);
    let Some(format) = named.or(found) else {
        let what = detection::describe(value);
        return rejected(None, &format!("appears to be {what}; expected {EXPECTED}"));
    };
    if found.is_some_and(|found| found != format) || value.is_null() {
        let what = found.map_or_else(
            || detection::describe(value),
            |found| format!("a conversation in the format {}", found.name()),
        );
        let name = format.name();
        return rejected(
            None,
            &format!("appears to be {what}; expected the format {name}"),
        );
    }
    let source = formats::read(format, value);
    let source_id = match &source {
        Ok(source) => source.id.clone(),
        Err(_) => formats::id(format, value),
    };
    let converted = source.and_then(|source| conversion::convert(source, format, value, options));
    match converted {
        Ok(conversation) => Outcome::Converted(Box::new(conversation)),
        Err(reason) => rejected(source_id, &reason),
    }
}

fn too_large(limit: ExceededLimit) -> String {
    let mib = MAX_CONVERSATION_BYTES >> 20;
    let limit = match limit {
        ExceededLimit::Bytes => format!("{mib} MiB"),
        ExceededLimit::Values => format!("{MAX_CONVERSATION_VALUES} JSON values"),
    };
    format!("has more than {limit}, the limit of a conversation")
}

fn too_deep(max: usize) -> String {
    format!("is nested more than {max} levels deep, the limit of JSON")
}

fn rejected(source_id: Option<String>, reason: &str) -> Outcome {
    Outcome::Rejected(Rejection {
        source_id,
        reason: reason.to_owned(),
    })
}

impl<R: Read> Iterator for ConversationReader<R> {
    type Item = io::Result<Outcome>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_ended {
            match self.elements.next() {
                Ok(Some(event)) => {
                    if let Some(outcome) = self.take(event) {
                        return Some(Ok(outcome));
                    }
                }
                Ok(None) => self.is_ended = true,
                Err(error) => {
                    self.is_ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
