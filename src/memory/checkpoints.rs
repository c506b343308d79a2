use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Error, Memory, Resource, save_messages::derive_title, write_through::WindowUpdate};
use crate::{
    domain::{
        CheckpointId, CheckpointNamespace, ContentDigest, Contents, ConversationChanges,
        ConversationId, ConversationRef, Message, Metadata, NewConversation, NewMessage, UserId,
    },
    store::{
        AncestorQuery, Appended, Branch, CheckpointPage, CheckpointQuery, PutCheckpoint, PutWrites,
        ReusedKey, StoreError, StoredCheckpoint, checkpoints::PUT_LIMIT,
    },
};

/// Number of conversations that are found together.
const CONVERSATIONS: u32 = 100;

/// Conversation that a write to a thread creates.
#[derive(Clone, Debug, Default)]
pub struct NewThread {
    /// Owner; `None` for the user that the call names.
    pub user_id: Option<UserId>,
    /// The thread's own name.
    pub name: Option<String>,
    /// Metadata of the conversation.
    pub metadata: Option<Metadata>,
}

/// Outcome of a put.
#[derive(Clone, Copy, Debug)]
pub struct PutOutcome {
    /// Number of the conversation's last message.
    pub last_seq: i64,
    /// Number of messages that were saved.
    pub saved_messages: usize,
}

/// Stored checkpoint with its new messages as they are stored.
struct Committed {
    last_seq: i64,
    messages: Vec<Message>,
    appended: Option<Appended>,
    has_pinned: bool,
}

impl Memory {
    /// Stores a checkpoint, and saves its messages that the conversation does not contain. Creates the
    /// conversation if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::BaseVersionMissing`], [`Error::ContentMissing`] and the errors of
    /// [`Self::save_messages`] mean that nothing was stored; after [`Error::OutcomeUnknown`] a retry
    /// is safe.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn put_checkpoint(
        &self,
        mut put: PutCheckpoint,
        new: Option<NewThread>,
    ) -> Result<PutOutcome, Error> {
        let (keys, messages): (Vec<String>, Vec<NewMessage>) = put.messages.into_iter().unzip();
        let messages = self.count_tokens(messages).await?;
        put.title = derive_title(&messages);
        put.messages = keys.into_iter().zip(messages).collect();
        put.at = self.0.clock.now();
        let memory = self.clone();
        // The caller does not wait for the window: until it has the messages, reads go to the store.
        self.uninterrupted_after(|stored| async move {
            let mut stored = Some(stored);
            match memory.put(&mut put, &mut stored).await {
                Err(Error::NotFound(_)) => {
                    memory.create_thread(&put.conversation, new).await?;
                    memory.put(&mut put, &mut stored).await
                }
                outcome => outcome,
            }
        })
        .await
    }

    /// Stores a checkpoint. Sends the outcome as soon as it is known.
    async fn put(
        &self,
        put: &mut PutCheckpoint,
        stored: &mut Option<oneshot::Sender<PutOutcome>>,
    ) -> Result<PutOutcome, Error> {
        let conversation = put.conversation.clone();
        let id = conversation.id;
        let put_error = |error| Error::from_write(error, id, true);
        if put.messages.is_empty() {
            let stored = self.0.store.put_checkpoint(put).await.map_err(put_error)?;
            return Ok(PutOutcome {
                last_seq: stored.last_seq,
                saved_messages: 0,
            });
        }
        let write = async |invalidation| {
            put.invalidation = invalidation;
            let stored = self.0.store.put_checkpoint(put).await?;
            Ok::<_, StoreError>(Committed::new(put, stored))
        };
        let committed = self
            .write_through(
                &conversation,
                PUT_LIMIT,
                write,
                Committed::window_update,
                async |committed| {
                    if let Some(stored) = stored.take() {
                        // The caller may have stopped waiting.
                        let _ = stored.send(committed.outcome());
                    }
                },
            )
            .await
            .map_err(put_error)?;
        Ok(committed.outcome())
    }

    /// Stores writes of a task. Creates the conversation `new` if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::put_checkpoint`].
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn put_writes(&self, put: PutWrites, new: Option<NewThread>) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let (store, thread) = (&memory.0.store, &put.conversation);
            let mut written = store.put_writes(&put).await;
            if matches!(written, Err(StoreError::NotFound)) {
                memory.create_thread(thread, new).await?;
                written = store.put_writes(&put).await;
            }
            written.map_err(|error| Error::from_write(error, thread.id, true))
        })
        .await
    }

    /// Stores data that later writes refer to. Creates the conversation `new` if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::put_checkpoint`].
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn put_contents(
        &self,
        conversation: ConversationRef,
        contents: Contents,
        new: Option<NewThread>,
    ) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let (store, name) = (
                &memory.0.store,
                new.as_ref().and_then(|new| new.name.clone()),
            );
            let write = || store.put_contents(&conversation, name.as_deref(), &contents);
            let mut written = write().await;
            if matches!(written, Err(StoreError::NotFound)) {
                memory.create_thread(&conversation, new).await?;
                written = write().await;
            }
            written.map_err(|error| Error::from_write(error, conversation.id, true))
        })
        .await
    }

    /// Creates the conversation of a thread, if the caller wants that. If the id is in use, the next write reports whether the
    /// caller owns that conversation.
    async fn create_thread(
        &self,
        conversation: &ConversationRef,
        new: Option<NewThread>,
    ) -> Result<(), Error> {
        let id = conversation.id;
        let Some(new) = new else {
            return Err(Error::NotFound(Resource::Conversation(id)));
        };
        let user_id = new.user_id.or_else(|| conversation.user_id.clone());
        let user_id = user_id.ok_or(Error::NotFound(Resource::Conversation(id)))?;
        let new = NewConversation {
            id,
            user_id,
            dept_id: None,
            title: None,
            metadata: new.metadata,
            session_id: None,
            is_listed: true,
            reuses_id: true,
        };
        match self.0.store.create(&new, self.0.clock.now()).await {
            Ok(_) | Err(StoreError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(Error::from_write(error, id, true)),
        }
    }

    /// Reads a checkpoint, the latest one without an id.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation or checkpoint; with
    /// [`Error::Unavailable`] if the store cannot be reached.
    pub async fn get_checkpoint(
        &self,
        conversation: &ConversationRef,
        namespace: &CheckpointNamespace,
        id: Option<CheckpointId>,
    ) -> Result<CheckpointPage, Error> {
        let _permit = self.read_permit().await?;
        let read = self.0.store.checkpoint(conversation, namespace, id).await;
        let page = read.map_err(|error| Error::from_store(error, conversation.id))?;
        if page.records.is_empty() {
            return Err(Error::NotFound(Resource::Checkpoint(conversation.id)));
        }
        Ok(page)
    }

    /// Reads data that checkpoints refer to.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::get_checkpoint`], and with [`Error::ContentMissing`].
    pub async fn get_contents(
        &self,
        conversation: &ConversationRef,
        digests: &[ContentDigest],
    ) -> Result<Vec<Bytes>, Error> {
        let _permit = self.read_permit().await?;
        let read = self
            .0
            .store
            .checkpoint_contents(conversation, digests)
            .await;
        read.map_err(|error| Error::from_store(error, conversation.id))
    }

    /// Lists checkpoints.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if there is no such conversation; with [`Error::Unavailable`]
    /// if the store cannot be reached.
    pub async fn list_checkpoints(&self, query: &CheckpointQuery) -> Result<CheckpointPage, Error> {
        let _permit = self.read_permit().await?;
        let read = self.0.store.checkpoints(query).await;
        read.map_err(|error| Error::from_store(error, query.conversation.id))
    }

    /// Reads ancestors of a checkpoint.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::list_checkpoints`].
    pub async fn get_delta_history(&self, query: &AncestorQuery) -> Result<CheckpointPage, Error> {
        let _permit = self.read_permit().await?;
        let read = self.0.store.checkpoint_ancestors(query).await;
        read.map_err(|error| Error::from_store(error, query.conversation.id))
    }

    /// Deletes a thread with its conversation, if it exists.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::delete_conversation`].
    pub async fn delete_thread(&self, conversation: ConversationRef) -> Result<(), Error> {
        match self.delete_conversation(conversation).await {
            Err(Error::NotFound(_)) => Ok(()),
            outcome => outcome,
        }
    }

    /// Copies a thread to another conversation: a branch that shares the messages, and copies of all
    /// checkpoints.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::NotFound`] if the thread does not exist; with [`Error::Reused`] if the
    /// target exists and is not an earlier copy; with the errors of a write.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn copy_thread(
        &self,
        source: ConversationRef,
        target: ConversationId,
        new: Option<NewThread>,
    ) -> Result<(), Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let store = &memory.0.store;
            let name = new.as_ref().and_then(|new| new.name.clone());
            let metadata = new.as_ref().and_then(|new| new.metadata.clone());
            let error_of = |id| move |error| Error::from_write(error, id, true);
            let original = store.get(&source).await.map_err(error_of(source.id))?;
            let target = ConversationRef {
                id: target,
                user_id: Some(original.user_id.clone()),
            };
            let of_any_user = ConversationRef {
                user_id: None,
                ..target
            };
            match store.get(&of_any_user).await {
                Ok(found) if found.user_id != original.user_id => {
                    return Err(error_of(target.id)(StoreError::NotFound));
                }
                Ok(found) if found.parent_id == Some(source.id) || found.last_seq == 0 => {}
                Ok(_) => return Err(Error::Reused(ReusedKey::ConversationId)),
                Err(StoreError::NotFound) if original.last_seq == 0 => {
                    memory
                        .create_thread(&target, Some(new.unwrap_or_default()))
                        .await?;
                }
                Err(StoreError::NotFound) => {
                    let branch = Branch {
                        parent: source.clone(),
                        at_seq: original.last_seq,
                        id: target.id,
                        title: None,
                        at: memory.0.clock.now(),
                    };
                    store.branch(&branch).await.map_err(error_of(source.id))?;
                }
                Err(error) => return Err(error_of(target.id)(error)),
            }
            let copied = store
                .copy_checkpoints(&source, &target, name.as_deref())
                .await;
            copied.map_err(error_of(source.id))?;
            // A branch has the metadata of its parent.
            if metadata.is_some() && metadata != original.metadata {
                let changes = ConversationChanges {
                    metadata: Some(metadata),
                    ..ConversationChanges::default()
                };
                let changed = store.update(&target, &changes, memory.0.clock.now()).await;
                changed.map_err(error_of(target.id))?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes the checkpoints of runs in all threads, of one user or of all. Returns their number.
    ///
    /// # Errors
    ///
    /// Fails with the errors of a write. A retry continues.
    pub async fn delete_runs(
        &self,
        runs: Vec<ContentDigest>,
        user: Option<UserId>,
    ) -> Result<i64, Error> {
        let mut deleted = 0;
        let mut after = None;
        loop {
            let store = &self.0.store;
            let found = store.conversations_of_runs(&runs, user.as_ref(), after, CONVERSATIONS);
            let found = found.await.map_err(Error::from_query)?;
            let Some(last) = found.last() else {
                return Ok(deleted);
            };
            after = Some(*last);
            for id in found {
                let conversation = ConversationRef {
                    id,
                    user_id: user.clone(),
                };
                let (memory, runs) = (self.clone(), runs.clone());
                deleted += self
                    .uninterrupted(async move {
                        let removed = memory.0.store.delete_runs(&conversation, &runs).await;
                        or_none(removed, id)
                    })
                    .await?;
            }
        }
    }

    /// Deletes all checkpoints of a thread but the latest ones, if the thread exists. Returns the
    /// number of deleted ones.
    ///
    /// # Errors
    ///
    /// Fails with the errors of a write.
    ///
    /// # Cancel safety
    ///
    /// Once it has begun, the write runs to its end even if the future is dropped.
    pub async fn prune_thread(&self, conversation: ConversationRef) -> Result<i64, Error> {
        let memory = self.clone();
        self.uninterrupted(async move {
            let removed = memory.0.store.prune_checkpoints(&conversation).await;
            or_none(removed, conversation.id)
        })
        .await
    }
}

/// A conversation that does not exist has no checkpoints to delete.
fn or_none(removed: Result<i64, StoreError>, id: ConversationId) -> Result<i64, Error> {
    match removed {
        Err(StoreError::NotFound) => Ok(0),
        removed => removed.map_err(|error| Error::from_write(error, id, true)),
    }
}

impl Committed {
    fn new(put: &PutCheckpoint, stored: StoredCheckpoint) -> Self {
        let (messages, appended) = stored.saved.unzip();
        let messages = messages.unwrap_or_default();
        let has_pinned = messages.iter().any(|message| message.pinned);
        let first_seq = match &appended {
            Some(Appended::Saved { first_seq, .. }) => *first_seq,
            _ => stored.last_seq,
        };
        let messages = (first_seq..)
            .zip(messages)
            .map(|(seq, message)| message.into_stored(put.conversation.id, seq, put.at));
        Self {
            last_seq: stored.last_seq,
            messages: messages.collect(),
            appended,
            has_pinned,
        }
    }

    fn outcome(&self) -> PutOutcome {
        PutOutcome {
            last_seq: self.last_seq,
            saved_messages: self.messages.len(),
        }
    }

    fn window_update(&self) -> WindowUpdate<'_> {
        match &self.appended {
            None => WindowUpdate::Unchanged,
            Some(Appended::Saved {
                owner,
                uncompacted_tokens,
                ..
            }) if !self.has_pinned => WindowUpdate::Append {
                owner,
                messages: &self.messages,
                uncompacted_tokens: *uncompacted_tokens,
            },
            Some(_) => WindowUpdate::Removal,
        }
    }
}
