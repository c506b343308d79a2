use std::fmt;

use chrono::{DateTime, Utc};

use super::{ConversationId, InvalidValue, Limits, MessageId, Metadata, text::no_nul};

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person.
    User,
    /// The agent.
    Assistant,
    /// Instructions to the model.
    System,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::System => "system",
            Self::Tool => "tool",
        }
    }

    /// Reads a stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::User, Self::Assistant, Self::System, Self::Tool]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// The text of a message or a retrieved document: within the limit, without
/// U+0000, and never shown by Debug.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Content(String);

impl Content {
    /// Takes a text; it may be empty.
    pub fn parse(text: String, limits: &Limits) -> Result<Self, InvalidValue> {
        if text.len() > limits.content_bytes {
            return Err(InvalidValue::new(format!(
                "must have at most {} bytes",
                limits.content_bytes
            )));
        }
        no_nul(&text)?;
        Ok(Self(text))
    }

    /// Takes a text that this program stored.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, given up.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

/// A document that retrieval put in front of the model for one message.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The document's id in its own system; empty when it has none.
    pub doc_id: String,
    /// What the model saw of it.
    pub content: Content,
    /// Relevance, a finite number.
    pub score: Option<f64>,
    /// Anything else.
    pub metadata: Option<Metadata>,
}

impl Context {
    /// The longest `doc_id`, in characters.
    pub const MAX_DOC_ID_CHARS: usize = 512;

    /// Takes a document's id; it may be empty.
    pub fn parse_doc_id(doc_id: String) -> Result<String, InvalidValue> {
        if doc_id.chars().count() > Self::MAX_DOC_ID_CHARS {
            return Err(InvalidValue::new(format!(
                "must have at most {} characters",
                Self::MAX_DOC_ID_CHARS
            )));
        }
        no_nul(&doc_id)?;
        Ok(doc_id)
    }
}

/// A message to be saved: what the caller said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    /// Its id, the caller's or a new one.
    pub id: MessageId,
    /// Whether the caller chose the id. Only then does the id make a retry.
    pub id_chosen: bool,
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: Content,
    /// Tokens that the model used.
    pub tokens_used: Option<i32>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: Option<i32>,
    /// When it was said, if the caller knows; the time of saving otherwise.
    pub created_at: Option<DateTime<Utc>>,
    /// Anything else.
    pub metadata: Option<Metadata>,
    /// What retrieval found for it.
    pub contexts: Vec<Context>,
}

impl NewMessage {
    /// The most contexts that a message may have.
    pub const MAX_CONTEXTS: usize = 100;
    /// The most messages that one save may have.
    pub const MAX_PER_SAVE: usize = 100;
    /// The most values that all metadata of a save may have, counted as
    /// [`Metadata::weight`] does: far more memory than bytes.
    pub const MAX_VALUES_PER_SAVE: usize = 300_000;

    /// About how many bytes it takes to send.
    pub fn size(&self) -> usize {
        size(&self.content, self.metadata.as_ref(), &self.contexts)
    }

    /// How many values its metadata has, and that of its contexts.
    pub fn weight(&self) -> usize {
        let contexts = self
            .contexts
            .iter()
            .map(|context| context.metadata.as_ref());
        let all = contexts.chain([self.metadata.as_ref()]);
        all.flatten().map(Metadata::weight).sum()
    }

    /// The message that was stored under `seq`, without its contexts.
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

    /// Whether `stored`, with its contexts, is what saving this message gave.
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

/// A message with the number that it had where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Its number, 1 or more.
    pub seq: i64,
    /// The message.
    pub message: NewMessage,
}

impl Message {
    /// How large an answer's messages may be in all, in bytes of
    /// [`Self::size`]: gRPC clients take 4 MiB unless told otherwise.
    pub const MAX_BYTES_PER_ANSWER: usize = 3 << 20;

    /// About how many bytes it takes to send.
    pub fn size(&self) -> usize {
        size(&self.content, self.metadata.as_ref(), &self.contexts)
    }
}

fn size(content: &Content, metadata: Option<&Metadata>, contexts: &[Context]) -> usize {
    let metadata = metadata.map_or(0, Metadata::size);
    let contexts = contexts.iter().map(|context| {
        let metadata = context.metadata.as_ref().map_or(0, Metadata::size);
        context.doc_id.len() + context.content.as_str().len() + metadata
    });
    content.as_str().len() + metadata + contexts.sum::<usize>()
}

/// A message as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The conversation that it belongs to.
    pub conversation_id: ConversationId,
    /// Its number in the conversation, from 1.
    pub seq: i64,
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: Content,
    /// Tokens that the model used.
    pub tokens_used: Option<i32>,
    /// How long the answer took, in milliseconds.
    pub latency_ms: Option<i32>,
    /// When it was said, to the microsecond.
    pub created_at: DateTime<Utc>,
    /// Anything else.
    pub metadata: Option<Metadata>,
    /// What retrieval found for it; empty where they were not asked for.
    pub contexts: Vec<Context>,
}
