//! Conversations as files: JSON, JSON Lines, CSV or Markdown, of which the first two can be
//! read back. docs/EXPORT.md describes the format, which has its own version.
//!
//! Files are written and read in pieces, so that memory does not grow with the length
//! of the conversation.

mod csv;
mod error;
mod json;
mod markdown;
mod parts;
mod reader;
mod schema;
mod split;

use chrono::{DateTime, Utc};

pub use self::{
    error::LineError,
    reader::{ArchiveReader, Record},
};
use domain::{Conversation, ConversationId, DeptId, Message, Metadata, Title, UserId};

/// Value of the member `format`, which identifies files of this program.
pub const FORMAT_NAME: &str = "conversation-memory";

/// Version of the format. It is increased when readers of the previous version would
/// misinterpret the file.
pub const FORMAT_VERSION: u32 = 1;

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// A line for the conversation, followed by a line for each message.
    JsonLines,
    /// A line of column names, followed by a line for each message; for spreadsheets.
    Csv,
    /// A heading and a text for each message; for people.
    Markdown,
}

/// Conversation that a file describes. A field is `None` if the file omits it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationHeader {
    /// Id of the conversation that was exported.
    pub id: Option<ConversationId>,
    /// Owner of the conversation.
    pub user_id: Option<UserId>,
    /// Department of the owner.
    pub dept_id: Option<DeptId>,
    /// Title.
    pub title: Option<Title>,
    /// Highest number that was assigned to a message.
    pub last_seq: Option<i64>,
    /// Time of creation.
    pub created_at: Option<DateTime<Utc>>,
    /// Time of the last change.
    pub updated_at: Option<DateTime<Utc>>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
}

/// Writes the file of a conversation: [`Self::begin`], then [`Self::add`] for all
/// messages in order, then [`Self::end`].
#[derive(Debug)]
pub struct ArchiveWriter {
    format: Format,
    is_first: bool,
}

impl ArchiveWriter {
    /// Begins a file, and returns its first bytes.
    pub fn begin(format: Format, conversation: &Conversation) -> (Self, Vec<u8>) {
        let writer = Self {
            format,
            is_first: true,
        };
        let beginning = match format {
            Format::Json => json::begin_document(conversation),
            Format::JsonLines => json::header_line(conversation),
            Format::Csv => csv::header(),
            Format::Markdown => markdown::header(conversation),
        };
        (writer, beginning)
    }

    /// Encodes further messages, which must be in order.
    pub fn add(&mut self, messages: &[Message]) -> Vec<u8> {
        let mut added = Vec::new();
        for message in messages {
            match self.format {
                Format::Json => json::add_to_document(&mut added, message, self.is_first),
                Format::JsonLines => json::add_line(&mut added, message),
                Format::Csv => csv::add_row(&mut added, message),
                Format::Markdown => markdown::add_message(&mut added, message),
            }
            self.is_first = false;
        }
        added
    }

    /// Returns the last bytes of the file.
    pub fn end(self) -> &'static [u8] {
        match self.format {
            Format::Json => json::END_OF_DOCUMENT,
            Format::JsonLines | Format::Csv | Format::Markdown => b"",
        }
    }
}

#[cfg(test)]
mod tests;
