use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationRef, Message},
    store::Snapshot,
};

/// About how many bytes of messages are read at a time.
const PIECE: usize = 1 << 20;
/// How many messages are read at first, before it is known how large they are.
const FIRST: u32 = 8;
/// How many are read at a time at most.
const MOST: u32 = 512;

/// A conversation that is being exported, as it was at one moment.
pub struct Export {
    /// What it is.
    pub conversation: Conversation,
    snapshot: Box<dyn Snapshot>,
    last_seq: i64,
    next_read: u32,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("conversation", &self.conversation.id)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Begins to export a conversation.
    pub async fn export_conversation(
        &self,
        conversation: &ConversationRef,
    ) -> Result<Export, Error> {
        let snapshot = self.0.store.snapshot(conversation).await;
        let (found, snapshot) =
            snapshot.map_err(|error| Error::of_store(error, conversation.id))?;
        Ok(Export {
            conversation: found,
            snapshot,
            last_seq: 0,
            next_read: FIRST,
        })
    }
}

impl Export {
    /// The next messages, oldest first; none at the end. About a mebibyte of
    /// them, or one that is larger.
    pub async fn next(&mut self) -> Result<Vec<Message>, Error> {
        let read = self.snapshot.after(self.last_seq, self.next_read).await;
        let read = read.map_err(|error| Error::of_store(error, self.conversation.id))?;
        if let Some(last) = read.last() {
            self.last_seq = last.seq;
            let bytes: usize = read.iter().map(Message::size).sum();
            let fit = PIECE * read.len() / bytes.max(1);
            // Messages grow, so that the next ones are not trusted to be like these.
            let most = MOST.min(self.next_read * 2);
            self.next_read = u32::try_from(fit).unwrap_or(MOST).clamp(1, most);
        }
        Ok(read)
    }
}
