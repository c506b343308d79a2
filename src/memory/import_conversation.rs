use chrono::{DateTime, Utc};

use super::{Error, Memory};
use crate::{
    domain::{Conversation, ConversationId, DeptId, Metadata, NumberedMessage, Title, UserId},
    fairness::ShareKey,
    store,
};

/// Approximate size of the messages that are written to the store at a time, in bytes of
/// [`crate::domain::NewMessage::size`]. Writes are short, so that turns are served between them.
const BATCH_BYTES: usize = 256 << 10;
/// Upper bound on the messages that are written at a time.
const BATCH_MESSAGES: usize = 128;
/// Approximate number of values in their metadata, which in memory take far more bytes than
/// in the file.
const BATCH_VALUES: usize = 10_000;

/// Conversation to be imported.
#[derive(Clone, Debug)]
pub struct ImportConversation {
    /// Id of the conversation; `None` generates one.
    pub id: Option<ConversationId>,
    /// Owner of the new conversation.
    pub user_id: UserId,
    /// Department of the owner.
    pub dept_id: Option<DeptId>,
    /// Title.
    pub title: Option<Title>,
    /// Time of creation; `None` uses the current time.
    pub created_at: Option<DateTime<Utc>>,
    /// Time of the last change; `None` uses the current time.
    pub updated_at: Option<DateTime<Utc>>,
    /// Metadata that the caller attached.
    pub metadata: Option<Metadata>,
}

/// Import in progress. Its data are neither visible nor kept unless [`Self::finish`] succeeds.
pub struct ConversationImport {
    memory: Memory,
    id: ConversationId,
    /// Whether the caller chose the id, so that a retry cannot import the conversation twice.
    id_chosen: bool,
    stored: Box<dyn store::Import>,
    batch: Batch,
    /// Number of messages that were written to the store.
    message_count: i64,
}

/// Messages that are not written yet.
#[derive(Default)]
struct Batch {
    messages: Vec<NumberedMessage>,
    bytes: usize,
    values: usize,
}

impl Batch {
    fn push(&mut self, message: NumberedMessage) {
        self.bytes += message.message.size() + message.message.blob_bytes();
        self.values += message.message.weight();
        self.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES
            || self.bytes >= BATCH_BYTES
            || self.values >= BATCH_VALUES
    }
}

impl std::fmt::Debug for ConversationImport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConversationImport")
            .field("conversation", &self.id)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Begins to import a conversation.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Unavailable`] if the store cannot be reached, or too many imports are in
    /// progress.
    pub async fn import_conversation(
        &self,
        request: ImportConversation,
    ) -> Result<ConversationImport, Error> {
        let now = self.0.clock.now();
        let conversation = Conversation {
            id: request
                .id
                .unwrap_or_else(|| ConversationId::from_uuid(self.new_id())),
            user_id: request.user_id,
            dept_id: request.dept_id,
            title: request.title,
            last_seq: 0,
            created_at: request.created_at.unwrap_or(now),
            updated_at: request.updated_at.unwrap_or(now),
            metadata: request.metadata,
            parent_id: None,
            branched_at_seq: None,
            compacted_upto_seq: 0,
            uncompacted_tokens: 0,
        };
        let import = self.0.store.import(&conversation).await;
        Ok(ConversationImport {
            memory: self.clone(),
            id: conversation.id,
            id_chosen: request.id.is_some(),
            stored: import.map_err(|error| Error::from_store(error, conversation.id))?,
            batch: Batch::default(),
            message_count: 0,
        })
    }
}

impl ConversationImport {
    /// Adds a message, whose number must be higher than the previous one. It is written to
    /// the store together with others, at the latest by [`Self::finish`].
    ///
    /// # Errors
    ///
    /// Fails with the error of the write, if this call caused one. The import cannot be continued
    /// after it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may lose messages: drop the import as well.
    pub async fn add(&mut self, message: NumberedMessage) -> Result<(), Error> {
        self.batch.push(message);
        if self.batch.is_full() {
            self.write_batch().await?;
        }
        Ok(())
    }

    /// Commits the import, and returns the conversation and the number of its messages.
    /// `last_seq` is the last number that was assigned, which is no lower than that of the
    /// last message.
    ///
    /// # Errors
    ///
    /// Fails with the error of the write or of the commit. [`Error::OutcomeUnknown`] allows a retry
    /// only with a chosen id; another one may import the conversation twice.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the commit runs to its end even if the future is dropped.
    pub async fn finish(mut self, last_seq: i64) -> Result<(Conversation, i64), Error> {
        self.write_batch().await?;
        let Self {
            memory,
            id,
            id_chosen,
            stored,
            ..
        } = self;
        let commit = async move {
            let finished = stored.finish(last_seq).await;
            finished.map_err(|error| Error::from_write(error, id, id_chosen))
        };
        Ok((memory.uninterrupted(commit).await?, self.message_count))
    }

    async fn write_batch(&mut self) -> Result<(), Error> {
        let Batch { messages, .. } = std::mem::take(&mut self.batch);
        if messages.is_empty() {
            return Ok(());
        }
        // Each holder is bounded by the time limit of a write.
        let permit = self.memory.0.import_permit.acquire(ShareKey::current());
        let _permit = permit.await;
        let (seqs, messages): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .map(|numbered| (numbered.seq, numbered.message))
            .unzip();
        let counted = self.memory.count_tokens(messages).await?;
        let messages: Vec<_> = seqs
            .into_iter()
            .zip(counted)
            .map(|(seq, message)| NumberedMessage { seq, message })
            .collect();
        let added = self.stored.add(&messages).await;
        added.map_err(|error| Error::from_store(error, self.id))?;
        self.message_count += i64::try_from(messages.len()).unwrap_or(0);
        Ok(())
    }
}
