//! Use cases of the services, one file each.
//!
//! They depend on the domain and on the traits [`Store`], [`RecentWindow`] and
//! [`Sessions`], but not on gRPC, SQL or Redis. Writes run on tracked tasks that a caller
//! cannot interrupt, and those that change messages keep the recent window consistent by
//! one function, `write_through`.

mod begin_turn;
mod blobs;
mod branches;
mod budget;
mod checkpoints;
mod compact_conversation;
mod conversations;
mod delete_conversation;
mod error;
mod export_conversation;
mod get_history;
mod history;
mod import_conversation;
mod invalidations;
mod items;
mod newest;
mod redact_messages;
mod save_messages;
mod search_messages;
mod session_service;
mod token_count;
mod transfer_conversation;
mod truncate_conversation;
mod write_through;

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use self::{
    begin_turn::{BeginTurn, BeginTurnOutcome, SessionState},
    blobs::BlobData,
    branches::{BranchConversation, ListBranches},
    checkpoints::{NewThread, PutOutcome},
    compact_conversation::CompactConversation,
    conversations::{CreateConversation, ListMessages, MessagePage},
    error::{Error, Resource},
    export_conversation::ConversationExport,
    get_history::{GetHistory, HistoryLimits, HistoryOutcome},
    history::{History, HistoryMessages, HistoryQuery},
    import_conversation::{ConversationImport, ImportConversation},
    items::{FoundItems, FoundNamespaces, ItemBatchOutcome, ItemOperation, ItemResult},
    newest::Source,
    redact_messages::RedactMessages,
    save_messages::{SaveMessages, SaveOutcome},
    search_messages::Searched,
    session_service::CreateSession,
    transfer_conversation::TransferConversation,
    truncate_conversation::TruncateConversation,
};
use crate::{
    call,
    domain::{Clock, IdSource},
    fairness::{FairSemaphore, Permits, ShareKey},
    patience::with_patience,
    recent::RecentWindow,
    sessions::Sessions,
    store::Store,
    tokens::TokenEncoding,
};

/// Dependencies of the use cases.
#[derive(Debug)]
pub struct Dependencies {
    /// Durable store.
    pub store: Arc<dyn Store>,
    /// Recent windows: the newest messages of conversations.
    pub recent: Arc<dyn RecentWindow>,
    /// Live sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Generator of ids.
    pub ids: Arc<dyn IdSource>,
    /// Tracker of the tasks that run writes, which shutdown waits for.
    pub writes: TaskTracker,
    /// Permits that bound the concurrent writes, including those whose callers no longer wait.
    pub write_permits: FairSemaphore,
    /// Permits that bound the concurrent reads of messages from the store, and with them the
    /// memory that these take.
    pub read_permits: FairSemaphore,
    /// Bytes of the responses that callers have not read. A caller who has reached its limit reads
    /// nothing from the store, because the response would be rejected.
    pub response_bytes: FairSemaphore,
    /// Permit of the import that writes messages. Imports write one at a time, because a turn would
    /// otherwise wait for a processor behind all of them.
    pub import_permit: FairSemaphore,
    /// Number of messages in a history if the caller sets no limit.
    pub default_limit: u32,
    /// Number of tokens without a summary above which a conversation should be compacted; 0 for
    /// never.
    pub compaction_tokens: u64,
    /// Encoding that determines the number of tokens of a message.
    pub token_encoding: TokenEncoding,
}

/// Maximum time that a read waits for others.
const MAX_READ_WAIT: Duration = Duration::from_secs(1);

/// Part of all bytes of unread responses, one in this number, that must be left for a caller who
/// reads from the store: as much as the largest response, with the default limit.
const SHARE_OF_A_RESPONSE: usize = 8;

/// Use cases of the services. Clones share their dependencies.
#[derive(Clone)]
pub struct Memory(Arc<Dependencies>);

impl Memory {
    /// Upper bound on the messages of a history or a page.
    pub const MAX_LIMIT: u32 = 1000;

    /// Creates the use cases from their dependencies.
    pub fn new(dependencies: Dependencies) -> Self {
        Self(Arc::new(dependencies))
    }

    /// Generates an id.
    pub fn new_id(&self) -> uuid::Uuid {
        self.0.ids.uuid()
    }

    /// Waits for a permit to read from the store, which lasts until the result is passed on: a read
    /// that consists of several would otherwise keep its first part while it waits for the others.
    async fn read_permit(&self) -> Result<Permits, Error> {
        let key = ShareKey::current();
        let acquired = self.0.read_permits.acquire(key);
        let permits = with_patience(MAX_READ_WAIT, acquired).await;
        let permits = permits.map_err(|_| Error::TooManyReads)?;
        let responses = &self.0.response_bytes;
        if !responses.is_available(key, responses.limit() / SHARE_OF_A_RESPONSE) {
            return Err(Error::TooManyResponseBytes {
                max: responses.limit(),
            });
        }
        Ok(permits)
    }

    /// Runs a write on a tracked task, to its end even if the caller stops waiting. An
    /// interrupted write would leave a transaction open on a pooled connection, or commit
    /// without updating the recent window.
    ///
    /// # Errors
    ///
    /// Fails with the error of `write`; with [`Error::Overloaded`] if the limit on concurrent
    /// writes is reached; [`Error::Internal`] if `write` panics.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not interrupt the write.
    async fn uninterrupted<T, F>(&self, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let key = ShareKey::current();
        let permit = self.0.write_permits.try_acquire(key, 1);
        let permit = permit.ok_or(Error::Overloaded)?;
        let write = async move {
            let outcome = write.await;
            drop(permit);
            outcome
        };
        let write = self.0.writes.spawn(key.scope(call::inherit(write)));
        // The panic's own text may quote a message. The log has its location.
        let panicked = |_| Err(Error::Internal("a write panicked".into()));
        write.await.unwrap_or_else(panicked)
    }

    /// Runs a write like [`Self::uninterrupted`], whose outcome can be sent before its end. It counts as
    /// a concurrent write until then.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`Self::uninterrupted`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not interrupt the write.
    async fn uninterrupted_after<T, F>(
        &self,
        write: impl FnOnce(oneshot::Sender<T>) -> F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let (sender, sent) = oneshot::channel();
        let mut write = pin!(self.uninterrupted(write(sender)));
        tokio::select! {
            biased;
            Ok(outcome) = sent => Ok(outcome),
            outcome = &mut write => outcome,
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
