//! Conversations in the exports of other products and in data sets: bytes in, conversations out.
//!
//! A file is read one conversation at a time, so that memory does not grow with the file. Each
//! conversation is converted completely or rejected with a reason, and the next one is read.
//! docs/IMPORT.md describes what becomes of each kind of content.

mod archives;
mod conversion;
mod detection;
mod elements;
mod encoding;
mod formats;
mod ids;
mod pairing;
mod parse;
mod reader;
mod source;

use domain::{Conversation, ConversationId, Message};

pub use self::{
    archives::archive_id,
    conversion::ImportOptions,
    detection::{FileKind, START_BYTES, detect},
    encoding::copy_as_utf8,
    reader::{ConversationReader, Outcome, Rejection},
};

/// Upper bound on one conversation in a file, in bytes of UTF-8.
pub const MAX_CONVERSATION_BYTES: usize = 64 << 20;

/// Upper bound on the JSON values of one conversation.
pub const MAX_CONVERSATION_VALUES: usize = 2_000_000;

/// Upper bound on the brackets of one conversation that are open at the same time.
pub const MAX_CONVERSATION_DEPTH: usize = 20_000;

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `conversations.json` of ChatGPT.
    ChatGpt,
    /// `conversations.json` of claude.ai.
    Claude,
    /// ShareGPT and data sets of the same form.
    ShareGpt,
    /// Message arrays of OpenAI's API, and its JSON Lines for fine-tuning.
    OpenAi,
    /// Export of LibreChat.
    LibreChat,
    /// Export of Open WebUI.
    OpenWebUi,
}

impl Format {
    /// All formats that an import reads.
    pub const ALL: [Self; 6] = [
        Self::ChatGpt,
        Self::Claude,
        Self::ShareGpt,
        Self::OpenAi,
        Self::LibreChat,
        Self::OpenWebUi,
    ];

    /// Name of the format in commands and metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatGpt => "chatgpt",
            Self::Claude => "claude",
            Self::ShareGpt => "sharegpt",
            Self::OpenAi => "openai",
            Self::LibreChat => "librechat",
            Self::OpenWebUi => "open-webui",
        }
    }
}

/// Conversation with valid messages and ids that are derived from those of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportedConversation {
    /// Id in the file; `None` if it has none that is unique.
    pub source_id: Option<String>,
    /// Conversation. Its `last_seq` is the number of its messages.
    pub conversation: Conversation,
    /// Messages in order, with the data of blobs.
    pub messages: Vec<Message>,
    /// For each message, the id of a branch that would begin with it.
    pub branch_ids: Vec<ConversationId>,
    /// Other continuations of the conversation, each after the one that it branches from.
    pub branches: Vec<Branch>,
}

/// Continuation that shares the first messages of another conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// Id of the branch.
    pub id: ConversationId,
    /// Conversation that it branches from: the imported one or an earlier branch.
    pub parent_id: ConversationId,
    /// Number of the last message that it shares; 0 if it shares none, and is a conversation of its
    /// own.
    pub at_seq: i64,
    /// Its own messages, which follow the shared ones.
    pub messages: Vec<Message>,
    /// For each of these messages, the id of a branch that would begin with it.
    pub branch_ids: Vec<ConversationId>,
}

#[cfg(test)]
mod tests;
