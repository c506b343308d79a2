use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationRef, Message, Part},
    store::Snapshot,
};

/// Approximate size of the messages that are read at a time, in bytes of
/// [`Message::size`].
const READ_BYTES: usize = 1 << 20;
/// Number of messages in the first read, when their size is not known yet.
const FIRST_READ: u32 = 8;
/// Upper bound on the messages of a read.
const MAX_READ: u32 = 512;

/// Export in progress, of the conversation as it was when the export began.
pub struct ConversationExport {
    /// Conversation.
    pub conversation: Conversation,
    snapshot: Box<dyn Snapshot>,
    /// Number of the last message that was read.
    last_seq: i64,
    /// Number of messages to read next.
    next_read: u32,
}

impl std::fmt::Debug for ConversationExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConversationExport")
            .field("conversation", &self.conversation.id)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Begins to export a conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with [`Error::Unavailable`]
    /// if the store cannot be reached, or too many exports are in progress.
    pub async fn export_conversation(
        &self,
        conversation: &ConversationRef,
    ) -> Result<ConversationExport, Error> {
        let snapshot = self.0.store.snapshot(conversation).await;
        let (found, snapshot) =
            snapshot.map_err(|error| Error::from_store(error, conversation.id))?;
        Ok(ConversationExport {
            conversation: found,
            snapshot,
            last_seq: 0,
            next_read: FIRST_READ,
        })
    }
}

impl ConversationExport {
    /// Reads the next messages in order: about a mebibyte of them, or one that is larger.
    /// The end of the conversation is an empty list.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Unavailable`] if the snapshot cannot be read any further.
    pub async fn next(&mut self) -> Result<Vec<Message>, Error> {
        let read = self.snapshot.after(self.last_seq, self.next_read).await;
        let read = read.map_err(|error| Error::from_store(error, self.conversation.id))?;
        if let Some(last) = read.last() {
            self.last_seq = last.seq;
            let bytes: usize = read.iter().map(Message::size).sum();
            let fitting = READ_BYTES * read.len() / bytes.max(1);
            // At most twice as many as before: the following messages may be larger.
            let max = MAX_READ.min(self.next_read * 2);
            self.next_read = u32::try_from(fitting).unwrap_or(MAX_READ).clamp(1, max);
        }
        Ok(read)
    }

    /// Reads the data of a message's blobs.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::next`] does.
    pub async fn read_blobs(&mut self, message: &mut Message) -> Result<(), Error> {
        if !message.has_blobs() {
            return Ok(());
        }
        let blobs = self.snapshot.blobs(message.seq).await;
        let blobs = blobs.map_err(|error| Error::from_store(error, self.conversation.id))?;
        for (position, data) in blobs {
            let part = message.parts.get_mut(position as usize);
            if let Some(blob) = part.and_then(Part::as_blob_mut) {
                blob.data = Some(data);
            }
        }
        Ok(())
    }
}
