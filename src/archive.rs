//! A conversation as a file: JSON, JSON Lines or CSV. docs/EXPORT.md describes
//! the format, which has a version of its own.
//!
//! A file is written piece by piece, so that however long a conversation is, it
//! takes no more memory than a few of its messages.

mod csv;
mod json;
mod read;
mod split;

pub use self::read::{BadLine, Header, Item, Reader};
use crate::domain::{Conversation, Message};

/// What the first member of a JSON file says that it is.
pub const NAME: &str = "conversation-memory";

/// The version of the format. It grows when a reader of the one before would
/// misunderstand the file.
pub const VERSION: u32 = 1;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One document.
    Json,
    /// A line for the conversation, then a line for each message.
    JsonLines,
    /// A line of names, then a line for each message; for spreadsheets.
    Csv,
}

/// Writes a conversation, in order: [`Self::begin`], [`Self::add`] as often as
/// there are messages to be added, [`Self::end`].
#[derive(Debug)]
pub struct Writer {
    format: Format,
    is_first: bool,
}

impl Writer {
    /// Begins a file.
    pub fn begin(format: Format, conversation: &Conversation) -> (Self, Vec<u8>) {
        let writer = Self {
            format,
            is_first: true,
        };
        let beginning = match format {
            Format::Json => json::begin_document(conversation),
            Format::JsonLines => json::header_line(conversation),
            Format::Csv => csv::names(),
        };
        (writer, beginning)
    }

    /// Adds messages, oldest first.
    pub fn add(&mut self, messages: &[Message]) -> Vec<u8> {
        let mut added = Vec::new();
        for message in messages {
            match self.format {
                Format::Json => json::add_to_document(&mut added, message, self.is_first),
                Format::JsonLines => json::add_line(&mut added, message),
                Format::Csv => csv::add_row(&mut added, message),
            }
            self.is_first = false;
        }
        added
    }

    /// Ends the file.
    pub fn end(self) -> &'static [u8] {
        match self.format {
            Format::Json => json::END_OF_DOCUMENT,
            Format::JsonLines | Format::Csv => b"",
        }
    }
}

#[cfg(test)]
mod tests;
