//! Store on PostgreSQL, which all sidecars share.
//!
//! Saves are statements in autocommit mode, each of which saves one turn or several. Removals are
//! transactions, whose connection is closed if the transaction does not end.

mod append;
mod attempts;
mod batch;
mod branches;
mod checkpoints;
mod columns;
mod compaction;
mod connection;
mod conversations;
mod correction;
mod documents;
mod effects;
mod history;
mod hosts;
mod import;
mod invalidations;
mod items;
mod lineage;
mod ownership;
mod pooler;
mod prepare;
mod redaction;
mod reindex;
mod removal;
mod replica;
mod responsiveness;
mod search;
mod server_state;
mod session_check;
mod snapshot;
mod sqlstate;
mod store_connection;
mod transaction;
mod tsquery;
mod writer;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnectOptions;
use tokio::time::timeout;

use super::{
    Append, Appended, Bound, Branch, Compaction, ConversationPage, ConversationQuery, Import,
    Invalidation, MessagePlace, MinState, Newest, OwnerChange, PendingInvalidation, Redacted,
    Redaction, Reindexed, SchemaError, SearchPage, SearchQuery, Snapshot, Store, StoreError,
    Truncated, Truncation, group_commit::GroupCommit, operation_error::OperationError, sql,
    transfers::TransferLimit,
};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, Message,
        NewConversation, SessionId, UserId,
    },
    fairness::{FairSemaphore, Permits, ShareKey},
    text_analysis::Languages,
};

pub(super) use self::sqlstate::classify;
use self::{
    connection::{PoolLimits, PostgresPool},
    hosts::Hosts,
    prepare::Target,
    replica::Replica,
    server_state::ServerState,
    session_check::SessionCheck,
    writer::PostgresWriter,
};
pub use self::{pooler::Pooler, replica::ReplicaSettings};

type ConversationRow = super::rows::ConversationRow<uuid::Uuid, DateTime<Utc>>;
type MessageRow = super::rows::MessageRow<uuid::Uuid, DateTime<Utc>>;

/// [`Store`] in PostgreSQL.
///
/// A write whose future is dropped is executed completely or not at all, and does not
/// affect later calls on the same pool. A caller that needs the outcome must not drop the
/// future.
pub struct PostgresStore {
    pool: Arc<PostgresPool>,
    saves: GroupCommit<PostgresWriter>,
    threads: checkpoints::KnownThreads,
    /// Limits exports and imports, which use a connection for a long time.
    transfers: TransferLimit,
    /// Limits truncations, deletions, compactions and redactions, which can take long or wait for
    /// each other. Together with the transfers and the searches, they leave connections for turns.
    removals: FairSemaphore,
    check: Arc<SessionCheck>,
    /// Options for the connection that migrates the schema, if it is another one.
    migration: Option<PgConnectOptions>,
    replica: Option<Replica>,
}

impl PostgresStore {
    /// Creates a store that is searched with the default configuration. See
    /// [`Self::with_languages`].
    pub fn new(options: PgConnectOptions, max_connections: u32) -> Self {
        Self::with_languages(options, max_connections, Languages::default())
    }

    /// Creates a store that detects a pooler when it is prepared. See [`Self::connect`].
    pub fn with_languages(
        options: PgConnectOptions,
        max_connections: u32,
        languages: Languages,
    ) -> Self {
        Self::connect(
            options,
            Vec::new(),
            max_connections,
            languages,
            Pooler::Detect,
        )
    }

    /// Creates a store on one server of several, the one that accepts writes. It opens at most `max_connections` connections, the first when it
    /// is first used. New messages are analyzed as texts in these languages. The connections lead
    /// to `pooler`.
    ///
    /// Must be called within a Tokio runtime.
    pub fn connect(
        options: PgConnectOptions,
        further: Vec<PgConnectOptions>,
        max_connections: u32,
        languages: Languages,
        pooler: Pooler,
    ) -> Self {
        let further = further.into_iter().map(connection::options).collect();
        let hosts = Arc::new(Hosts::new(connection::options(options), further));
        let server = Arc::new(ServerState::default());
        let check = Arc::new(SessionCheck::new(Arc::clone(&server), pooler));
        let pool = PostgresPool::new(
            "postgresql",
            hosts,
            max_connections,
            PoolLimits::PRIMARY,
            Arc::clone(&check),
            server,
            languages,
        );
        let pool = Arc::new(pool);
        let share = (max_connections as usize / 3).max(1);
        Self {
            saves: GroupCommit::new(PostgresWriter::new(Arc::clone(&pool)), writer::LIMITS),
            pool,
            threads: checkpoints::KnownThreads::default(),
            transfers: TransferLimit::new(share),
            removals: FairSemaphore::new(share),
            check,
            migration: None,
            replica: None,
        }
    }

    /// Migrates the schema on a connection with these options, which leads to PostgreSQL itself.
    #[must_use]
    pub fn with_migration_options(self, options: PgConnectOptions) -> Self {
        Self {
            migration: Some(connection::options(options)),
            ..self
        }
    }

    /// Reads from a standby, of several the first one that may be read, where [`MinState`] and `settings`
    /// allow it. It opens at most `max_connections` connections, which lead to `pooler`.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn with_replica(
        self,
        options: PgConnectOptions,
        further: Vec<PgConnectOptions>,
        max_connections: u32,
        pooler: Pooler,
        settings: ReplicaSettings,
    ) -> Self {
        let further = further.into_iter().map(connection::options).collect();
        let hosts = Arc::new(Hosts::new(connection::options(options), further));
        let server = Arc::new(ServerState::default());
        let primary = Arc::clone(&self.pool.server);
        let check = SessionCheck::of_standbys(Arc::clone(&server), pooler, primary);
        let check = Arc::new(check);
        let pool = PostgresPool::new(
            "postgresql_replica",
            hosts,
            max_connections,
            PoolLimits::REPLICA,
            Arc::clone(&check),
            server,
            self.pool.languages,
        );
        let transfers = TransferLimit::new((max_connections as usize * 3 / 10).max(1));
        let primary = Arc::clone(&self.pool);
        let replica = Replica::new(pool, check, primary, transfers, settings);
        Self {
            replica: Some(replica),
            ..self
        }
    }
}

impl PostgresStore {
    /// Records that a write to a conversation has ended, whatever its outcome.
    fn record_write(&self, conversation: ConversationId, user: Option<&UserId>) {
        if let Some(replica) = &self.replica {
            replica.recent_writes().record(conversation, user);
        }
    }

    /// Records that a write to several conversations of `users` has ended. `written` is its outcome, with
    /// the conversations that it has changed, others than that of the call among them.
    fn record_family_write<'a>(
        &self,
        written: Result<&'a [ConversationId], &'a StoreError>,
        conversation: ConversationId,
        users: &[Option<&UserId>],
    ) {
        let Some(replica) = &self.replica else {
            return;
        };
        match written {
            Ok(changed) => replica.recent_writes().record_all(changed, users),
            Err(StoreError::OutcomeUnknown(_)) => replica.recent_writes().record_unknown(),
            Err(_) => replica.recent_writes().record_all(&[conversation], users),
        }
    }

    /// Performs a write to a conversation, and records its end.
    async fn recorded<T>(
        &self,
        conversation: &ConversationRef,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let outcome = write.await;
        self.record_write(conversation.id, conversation.user_id.as_ref());
        outcome
    }

    /// Waits until another removal may use a connection.
    async fn start_removal(&self) -> Result<Permits, StoreError> {
        let permit = self.removals.acquire(ShareKey::current());
        let permit = timeout(attempts::MAX_REMOVAL_WAIT, permit).await;
        permit.map_err(|_| {
            StoreError::Unavailable("too many removals and compactions at once".into())
        })
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The options contain a password.
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn prepare(&self, migrate: bool) -> Result<(), SchemaError> {
        self.pool.locate().await;
        let target = Target {
            options: self.pool.options(),
            migration: self.migration.as_ref(),
            check: &self.check,
        };
        let prepared = prepare::prepare(&target, migrate).await;
        self.pool.update_options();
        if let (Ok(()), Some(replica)) = (&prepared, &self.replica) {
            replica.check_soon();
        }
        prepared
    }

    async fn create(
        &self,
        new: &NewConversation,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        let created =
            attempts::write(&self.pool, |_| conversations::create(&self.pool, new, at)).await;
        self.record_write(new.id, Some(&new.user_id));
        created
    }

    async fn get(&self, conversation: &ConversationRef) -> Result<Conversation, StoreError> {
        attempts::read(&self.pool, || conversations::get(&self.pool, conversation)).await
    }

    async fn attach_session(
        &self,
        conversation: &ConversationRef,
        session: SessionId,
    ) -> Result<Conversation, StoreError> {
        attempts::write(&self.pool, |_| {
            conversations::attach_session(&self.pool, conversation, session)
        })
        .await
    }

    async fn conversation_of_session(
        &self,
        session: SessionId,
        user: &UserId,
    ) -> Result<Option<Conversation>, StoreError> {
        attempts::read(&self.pool, || {
            conversations::current_of_session(&self.pool, session, user)
        })
        .await
    }

    async fn list(&self, query: &ConversationQuery) -> Result<ConversationPage, StoreError> {
        if let Some(page) = self.list_on_replica(query).await? {
            return Ok(page);
        }
        attempts::read(&self.pool, || conversations::list(&self.pool, query)).await
    }

    async fn update(
        &self,
        conversation: &ConversationRef,
        changes: &ConversationChanges,
        at: DateTime<Utc>,
    ) -> Result<Conversation, StoreError> {
        let updated = attempts::write(&self.pool, |_| {
            conversations::update(&self.pool, conversation, changes, at)
        })
        .await;
        let owner = match &updated {
            Ok(updated) => Some(&updated.user_id),
            Err(_) => conversation.user_id.as_ref(),
        };
        self.record_write(conversation.id, owner);
        updated
    }

    async fn delete(
        &self,
        conversation: &ConversationRef,
        invalidation: Invalidation,
    ) -> Result<(), StoreError> {
        let _permit = self.start_removal().await?;
        let write = attempts::transaction(&self.pool, || {
            removal::delete(&self.pool, conversation, invalidation)
        });
        self.recorded(conversation, Box::pin(write)).await
    }

    async fn append(&self, append: &Append) -> Result<Appended, StoreError> {
        let appended = if append.messages.iter().any(|message| message.id_chosen) {
            // An id that is in use, as in each retry, would make the statement of the batch fail.
            self.saves.append_single(append).await
        } else {
            self.saves.append(append).await
        };
        let owner = match &appended {
            Ok(Appended::Saved { owner, .. }) => Some(owner),
            _ => append.conversation.user_id.as_ref(),
        };
        self.record_write(append.conversation.id, owner);
        appended.map_err(OperationError::into_write_error)
    }

    async fn branch(&self, branch: &Branch) -> Result<Conversation, StoreError> {
        let branched =
            attempts::transaction(&self.pool, || branches::branch(&self.pool, branch)).await;
        let owner = match &branched {
            Ok(branched) => Some(&branched.user_id),
            Err(_) => branch.parent.user_id.as_ref(),
        };
        self.record_write(branch.id, owner);
        branched
    }

    async fn branches(
        &self,
        conversation: &ConversationRef,
        after: Option<i64>,
        limit: u32,
    ) -> Result<ConversationPage, StoreError> {
        attempts::read(&self.pool, || {
            branches::list(&self.pool, conversation, after, limit)
        })
        .await
    }

    async fn truncate(&self, truncation: &Truncation) -> Result<Truncated, StoreError> {
        let _permit = self.start_removal().await?;
        let write = attempts::transaction(&self.pool, || removal::truncate(&self.pool, truncation));
        self.recorded(&truncation.conversation, Box::pin(write))
            .await
    }

    async fn compact(&self, compaction: &Compaction) -> Result<i64, StoreError> {
        let _permit = self.start_removal().await?;
        let write =
            attempts::transaction(&self.pool, || compaction::compact(&self.pool, compaction));
        self.recorded(&compaction.conversation, Box::pin(write))
            .await
    }

    async fn containing(
        &self,
        conversation: &ConversationRef,
        seqs: &[i64],
    ) -> Result<Vec<ConversationId>, StoreError> {
        attempts::read(&self.pool, || {
            redaction::containing(&self.pool, conversation, seqs)
        })
        .await
    }

    async fn redact(&self, redaction: &Redaction) -> Result<Redacted, StoreError> {
        let _permit = self.start_removal().await?;
        let redacted =
            attempts::transaction(&self.pool, || redaction::redact(&self.pool, redaction)).await;
        let written = redacted.as_ref().map(|it| it.conversations.as_slice());
        let ConversationRef { id, user_id } = &redaction.conversation;
        self.record_family_write(written, *id, &[user_id.as_ref()]);
        redacted
    }

    async fn family(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        attempts::read(&self.pool, || ownership::family(&self.pool, change)).await
    }

    async fn change_owner(&self, change: &OwnerChange) -> Result<Vec<ConversationId>, StoreError> {
        let _permit = self.start_removal().await?;
        let changed =
            attempts::transaction(&self.pool, || ownership::change_owner(&self.pool, change)).await;
        let written = changed.as_ref().map(Vec::as_slice);
        let ConversationRef { id, user_id } = &change.conversation;
        self.record_family_write(written, *id, &[user_id.as_ref(), Some(&change.owner)]);
        changed
    }

    async fn newest(
        &self,
        conversation: &ConversationRef,
        limit: u32,
        contexts: bool,
    ) -> Result<Newest, StoreError> {
        attempts::read(&self.pool, || {
            history::newest(&self.pool, conversation, limit, contexts)
        })
        .await
    }

    async fn blobs(
        &self,
        conversation: ConversationId,
        seq: i64,
    ) -> Result<Vec<(u32, Bytes)>, StoreError> {
        attempts::read(&self.pool, || history::blobs(&self.pool, conversation, seq)).await
    }

    async fn messages(
        &self,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<Vec<Message>, StoreError> {
        attempts::read(&self.pool, || {
            history::messages(&self.pool, conversation, from, limit, contexts)
        })
        .await
    }

    async fn messages_since(
        &self,
        state: MinState,
        conversation: &ConversationRef,
        from: Bound,
        limit: u32,
        contexts: bool,
    ) -> Result<(Vec<Message>, MinState), StoreError> {
        let read = self.messages_on_replica(state, conversation, from, limit, contexts);
        if let Some(page) = read.await? {
            return Ok(page);
        }
        let messages = self.messages(conversation, from, limit, contexts).await?;
        Ok((messages, MinState::Latest))
    }

    async fn snapshot(
        &self,
        conversation: &ConversationRef,
    ) -> Result<(Conversation, Box<dyn Snapshot>), StoreError> {
        if let Some(taken) = self.snapshot_on_replica(conversation).await? {
            return Ok(taken);
        }
        let transfer = self.transfers.start()?;
        snapshot::take(&self.pool, conversation, transfer)
            .await
            .map_err(OperationError::into_read_error)
    }

    async fn import(&self, conversation: &Conversation) -> Result<Box<dyn Import>, StoreError> {
        let transfer = self.transfers.start()?;
        let import = import::begin(&self.pool, conversation, transfer).await?;
        Ok(match &self.replica {
            Some(replica) => replica::record_import(replica, conversation, import),
            None => import,
        })
    }

    async fn search(&self, query: &SearchQuery) -> Result<SearchPage, StoreError> {
        if let Some(page) = self.search_on_replica(query).await? {
            return Ok(page);
        }
        attempts::read(&self.pool, || search::search(&self.pool, query)).await
    }

    async fn correct(&self, query: &SearchQuery) -> Result<Option<String>, StoreError> {
        if let Some(corrected) = self.correct_on_replica(query).await? {
            return Ok(corrected);
        }
        attempts::read(&self.pool, || correction::correct(&self.pool, query)).await
    }

    async fn reindex(&self, after: Option<MessagePlace>) -> Result<Reindexed, StoreError> {
        attempts::write(&self.pool, |_| reindex::reindex(&self.pool, after)).await
    }

    fn history(&self) -> Bytes {
        self.pool.server.history().unwrap_or_default()
    }

    fn has_idle_connection(&self) -> bool {
        self.pool.has_idle_connection()
    }

    async fn pending_invalidations(
        &self,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<PendingInvalidation>, StoreError> {
        attempts::read(&self.pool, || invalidations::read(&self.pool, after, limit)).await
    }

    async fn complete_invalidations(
        &self,
        completed: &[PendingInvalidation],
    ) -> Result<(), StoreError> {
        attempts::write(&self.pool, |_| invalidations::remove(&self.pool, completed)).await
    }

    async fn close(&self) {
        self.saves.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
        self.pool.close().await;
    }
}
