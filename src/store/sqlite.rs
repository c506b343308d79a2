//! Store in an SQLite file, for a sidecar that runs without other servers.
//!
//! All writes of a process use one connection, each in a transaction that takes the
//! file's write lock when it begins. Saves that arrive meanwhile share a transaction. Reads use separate connections and see the last
//! commit. Several processes can share a file.

mod append;
mod batches;
mod branches;
mod checkpoints;
mod columns;
mod compaction;
mod connection;
mod conversations;
mod correction;
mod disk_space;
mod documents;
mod effects;
mod history;
mod import;
mod items;
mod lineage;
mod ownership;
mod pending_removals;
mod prepare;
mod redaction;
mod removal;
mod result_codes;
mod search;
mod snapshot;
mod together;
mod wal;

use std::{fmt, future::Future, io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::{Sqlite, sqlite::SqliteConnectOptions};

use super::{
    Append, Appended, Bound, Branch, Compaction, ConversationPage, ConversationQuery, Import,
    Invalidation, MessagePlace, Newest, OwnerChange, PendingInvalidation, Redacted, Redaction,
    Reindexed, SchemaError, SearchPage, SearchQuery, Snapshot, Store, StoreError, Truncated,
    Truncation, group_commit::GroupCommit, operation_error::OperationError, pool,
    search_limit::SearchLimit, sql, transfers::TransferLimit,
};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, Message,
        NewConversation, SessionId, UserId,
    },
    text_analysis::Languages,
};

pub(super) use self::result_codes::classify;
use self::{
    batches::BatchWriter, documents::Analysis, pending_removals::Sweeper, wal::Checkpointer,
};

type SqlitePool = pool::MeteredPool<Sqlite>;
type ConversationRow = super::rows::ConversationRow<uuid::fmt::Hyphenated, connection::Micros>;
type MessageRow = super::rows::MessageRow<uuid::fmt::Hyphenated, connection::Micros>;

/// [`Store`] in an SQLite file.
pub struct SqliteStore {
    options: SqliteConnectOptions,
    writer: Arc<SqlitePool>,
    saves: GroupCommit<BatchWriter>,
    sweeper: Arc<Sweeper>,
    readers: Arc<SqlitePool>,
    /// Connections of searches, which can take long.
    searchers: SqlitePool,
    searches: SearchLimit,
    transfers: TransferLimit,
    analysis: Analysis,
    checkpointer: Checkpointer,
    languages: Languages,
}

impl SqliteStore {
    /// Creates a store on `file`, which [`Store::prepare`] creates, searched with
    /// the default configuration. See [`Self::with_options`].
    ///
    /// # Errors
    ///
    /// Fails if the directory of the file cannot be created.
    pub fn open(file: &Path) -> io::Result<Self> {
        Self::with_languages(file, Languages::default())
    }

    /// Creates a store on `file`, whose messages are analyzed as texts in these languages. See
    /// [`Self::with_options`].
    ///
    /// # Errors
    ///
    /// Fails if the directory of the file cannot be created.
    pub fn with_languages(file: &Path, languages: Languages) -> io::Result<Self> {
        Self::with_options(connection::options(file), languages)
    }

    /// Creates a store whose connections are opened with `options`, to which the
    /// store adds the settings that it depends on. Creates the directory of the
    /// file, with access for its owner only. [`Store::prepare`] creates the file, and begins to
    /// analyze messages again that were analyzed in other languages.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// Fails if the directory of the file cannot be created.
    pub fn with_options(options: SqliteConnectOptions, languages: Languages) -> io::Result<Self> {
        connection::create_directory(options.get_filename())?;
        let options = connection::required_options(options);
        let writer = Arc::new(connection::writer(options.clone()));
        let readers = Arc::new(connection::readers(options.clone()));
        let file = options.get_filename().to_owned();
        let analysis = Analysis::new(Arc::clone(&writer), languages);
        Ok(Self {
            checkpointer: Checkpointer::new(options.clone(), Arc::clone(&writer)),
            sweeper: Arc::new(Sweeper::new(
                Arc::clone(&writer),
                Arc::clone(&readers),
                file,
            )),
            saves: GroupCommit::new(BatchWriter(Arc::clone(&writer)), batches::LIMITS),
            writer,
            readers,
            searchers: connection::searchers(options.clone()),
            // A search whose caller has gone away is interrupted at once.
            searches: SearchLimit::new(connection::SEARCHERS as usize, Duration::ZERO),
            transfers: TransferLimit::new(connection::MAX_TRANSFERS),
            options,
            analysis,
            languages,
        })
    }

    /// Performs an operation whose COMMIT may have been executed when it fails, and maps its errors. If
    /// it found no room on the disk, it is repeated when the log has given up its room.
    async fn write<T, F: Future<Output = Result<T, OperationError>>>(
        &self,
        operation: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        match self.write_once(operation()).await {
            Err(StoreError::Full(_)) if self.checkpointer.empty_log().await => {
                self.write_once(operation()).await
            }
            written => written,
        }
    }

    /// Maps the errors of an operation as [`Self::write`] does, without repeating it.
    async fn write_once<T>(
        &self,
        operation: impl Future<Output = Result<T, OperationError>>,
    ) -> Result<T, StoreError> {
        self.checkpointer.make_room().await;
        let written = operation.await;
        self.analysis.notify();
        self.checkpointer.notify();
        disk_space::write_outcome(written, self.options.get_filename()).await
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("file", &self.options.get_filename())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError> {
        let left = prepare::prepare(&self.options, migrate).await?;
        self.sweeper.sweep_leftovers(left);
        self.sweeper.sweep_leftover_threads();
        self.analysis.start();
        self.checkpointer.start();
        Ok(())
    }

    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        self.write(|| conversations::create(&self.writer, new, at))
            .await
    }

    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError> {
        read(conversations::get(&self.readers, conversation)).await
    }

    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError> {
        self.write(|| async move {
            conversations::attach_session(&self.readers, &self.writer, conversation, session).await
        })
        .await
    }

    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError> {
        read(conversations::current_of_session(
            &self.readers,
            session,
            user,
        ))
        .await
    }

    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError> {
        read(conversations::list(&self.readers, query)).await
    }

    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        self.write(|| async move {
            conversations::update(&self.readers, &self.writer, conversation, changes, at).await
        })
        .await
    }

    async fn delete(
        &self,
        conversation: &ConversationRef,
        _invalidation: Invalidation,
    ) -> Result<(), StoreError> {
        let left = self
            .write(|| removal::delete(&self.writer, conversation))
            .await?;
        self.sweeper.sweep(left).await;
        self.sweep_threads().await;
        Ok(())
    }

    async fn append(&self, append: &Append) -> Result<Appended, StoreError> {
        self.write(|| self.saves.append(append)).await
    }

    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError> {
        self.write(|| branches::branch(&self.writer, branch)).await
    }

    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        read(branches::list(&self.readers, conversation, after, limit)).await
    }

    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError> {
        let (truncated, left) = self
            .write(|| removal::truncate(&self.writer, truncation))
            .await?;
        self.sweeper.sweep(left).await;
        Ok(truncated)
    }

    async fn compact(&self, compaction: &Compaction) -> Result<i64, StoreError> {
        self.write(|| compaction::compact(&self.writer, compaction))
            .await
    }

    async fn containing(
        &self,
        conversation: &ConversationRef,
        seqs: &[i64],
    ) -> Result<Vec<ConversationId>, StoreError> {
        read(redaction::containing(&self.readers, conversation, seqs)).await
    }

    async fn redact(&self, redaction: &Redaction) -> Result<Redacted, StoreError> {
        let Redaction {
            conversation, seqs, ..
        } = redaction;
        self.write(|| redaction::redact(&self.writer, conversation, seqs))
            .await
    }

    async fn family(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        read(ownership::family(&self.readers, change)).await
    }

    async fn change_owner(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        self.write(|| ownership::change_owner(&self.writer, change))
            .await
    }

    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<Newest, StoreError> {
        read(history::newest(
            &self.readers,
            conversation,
            limit,
            contexts,
        ))
        .await
    }

    async fn blobs(
        &self,
        conversation: ConversationId,
        seq: i64,
    ) -> Result<Vec<(u32, Bytes)>, StoreError> {
        read(history::blobs(&self.readers, conversation, seq)).await
    }

    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError> {
        read(history::messages(
            &self.readers,
            conversation,
            from,
            limit,
            contexts,
        ))
        .await
    }

    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError> {
        let transfer = self.transfers.start()?;
        read(snapshot::take(&self.options, conversation, transfer)).await
    }

    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError> {
        let transfer = self.transfers.start()?;
        self.write_once(import::begin(
            &self.options,
            &self.writer,
            &self.sweeper,
            self.analysis.notifier(),
            conversation,
            transfer,
        ))
        .await
    }

    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError> {
        read(search::search(
            &self.searchers,
            &self.searches,
            self.languages,
            query,
        ))
        .await
    }

    async fn correct(&self, query: &SearchQuery) -> Result<Option<String>, StoreError> {
        read(correction::correct(
            &self.searchers,
            &self.searches,
            self.languages,
            query,
        ))
        .await
    }

    async fn reindex(&self, _after: Option<MessagePlace>) -> Result<Reindexed, StoreError> {
        let reindexed = documents::reindex(&self.writer, self.languages);
        disk_space::write_outcome(reindexed.await, self.options.get_filename()).await
    }

    // One process uses the file, and has no recent windows.

    fn history(&self) -> Bytes {
        Bytes::new()
    }

    fn has_idle_connection(&self) -> bool {
        false
    }

    async fn pending_invalidations(
        &self,
        _after: Option<ConversationId>,
        _limit: u32,
    ) -> Result<Vec<PendingInvalidation>, StoreError> {
        Ok(Vec::new())
    }

    async fn complete_invalidations(
        &self,
        _completed: &[PendingInvalidation],
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {
        self.analysis.close().await;
        self.sweeper.close().await;
        self.saves.close().await;
        self.checkpointer.close().await;
        self.searchers.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Maps the errors of an operation that writes nothing.
async fn read<T>(
    operation: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, StoreError> {
    operation.await.map_err(OperationError::into_read_error)
}

#[cfg(test)]
mod tests;
