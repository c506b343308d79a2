//! Checkpoints in PostgreSQL: transactions around what both databases share.

mod columns;
mod copy;
mod known_threads;
mod removal;
mod rows;
mod statements;
mod unlocked;

pub(super) use known_threads::KnownThreads;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::query_scalar;
use tokio::time::Instant;
use uuid::Uuid;

use self::rows::CheckpointConnection;
use super::{
    PostgresPool, PostgresStore, attempts,
    connection::{PooledConnection, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT},
    invalidations::{record_after, record_statement},
    store_connection::{Begin, StoreConnection},
    transaction::{BEGIN, before_commit_within, end, end_with},
};
use crate::{
    domain::{
        CheckpointId, CheckpointNamespace, ContentDigest, Contents, ConversationId,
        ConversationRef, UserId,
    },
    store::{
        AncestorQuery, CheckpointPage, CheckpointQuery, CheckpointStore, Invalidation,
        PutCheckpoint, PutWrites, StoreError, StoredCheckpoint,
        checkpoints::{self, Selection},
        operation_error::OperationError,
    },
};

const BEGIN_SNAPSHOT: Begin = Begin {
    statement: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    settings: "",
};

const OF_RUNS: &str = "SELECT DISTINCT t.conversation_id FROM checkpoint_states c \
        JOIN checkpoint_namespaces n ON n.id = c.namespace_id \
        JOIN checkpoint_threads t ON t.id = n.thread_id \
        JOIN conversations o ON o.id = t.conversation_id \
    WHERE c.run_id = ANY ($1) AND ($2 IS NULL OR o.user_id = $2) \
      AND ($3 IS NULL OR t.conversation_id > $3) \
    ORDER BY t.conversation_id LIMIT $4";

const HAVE_CHECKPOINTS: &str =
    "SELECT EXISTS (SELECT 1 FROM checkpoint_threads t WHERE t.conversation_id = ANY ($1))";

/// Rejects a removal of messages from conversations whose checkpoints contain them. The rows of the
/// conversations are locked.
pub(super) async fn reject_checkpoints(
    connection: &mut StoreConnection,
    conversations: &[Uuid],
) -> Result<(), OperationError> {
    let found = query_scalar(HAVE_CHECKPOINTS).bind(conversations);
    if found.fetch_one(connection).await? {
        return Err(StoreError::HasCheckpoints.into());
    }
    Ok(())
}

/// Runs writes in a transaction, which records a pending invalidation if it commits late.
async fn write<T>(
    pool: &PostgresPool,
    conversation: ConversationId,
    invalidation: Invalidation,
    limit: std::time::Duration,
    statements: impl AsyncFnOnce(&mut CheckpointConnection<'_>) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    let after = record_after(invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let wait = connection.wait();
    let written = before_commit_within(wait, limit, async {
        connection.begin(&BEGIN).await?;
        let mut rows = CheckpointConnection {
            connection: &mut connection,
            languages: pool.languages,
        };
        statements(&mut rows).await
    })
    .await;
    end_with(
        connection,
        written,
        &record_statement([conversation], after),
    )
    .await
}

/// Runs reads that see one state of a thread, which another process may prune meanwhile.
async fn read_snapshot<T>(
    pool: &PostgresPool,
    statements: impl AsyncFnOnce(&mut CheckpointConnection<'_>) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let read = async {
        connection.begin(&BEGIN_SNAPSHOT).await?;
        let mut rows = CheckpointConnection {
            connection: &mut connection,
            languages: pool.languages,
        };
        statements(&mut rows).await
    };
    let read = read.await;
    end(connection, read).await
}

/// Runs reads on a connection.
async fn read<T>(
    pool: &PostgresPool,
    statements: impl AsyncFnOnce(&mut CheckpointConnection<'_>) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let mut rows = CheckpointConnection {
        connection: &mut connection,
        languages: pool.languages,
    };
    let read = statements(&mut rows).await;
    connection.release(read).await
}

impl PostgresStore {
    async fn remove_checkpoints(
        &self,
        conversation: &ConversationRef,
        selection: &Selection,
    ) -> Result<i64, StoreError> {
        let _permit = self.start_removal().await?;
        let (pool, limit) = (&self.pool, REMOVAL_TIMEOUT);
        attempts::transaction(pool, || {
            write(
                pool,
                conversation.id,
                Invalidation::Never,
                limit,
                async |rows| removal::remove(rows, conversation, selection).await,
            )
        })
        .await
    }
}

#[async_trait]
impl CheckpointStore for PostgresStore {
    async fn put_checkpoint(&self, put: &PutCheckpoint) -> Result<StoredCheckpoint, StoreError> {
        let pool = &self.pool;
        let started = Instant::now();
        let stored = attempts::transaction(pool, || async {
            if let Some(stored) = unlocked::put_checkpoint(pool, &self.threads, put).await? {
                return Ok(stored);
            }
            attempts::may_start(started)?;
            let (id, limit) = (put.conversation.id, STATEMENT_TIMEOUT);
            write(pool, id, put.invalidation, limit, async |rows| {
                checkpoints::put_checkpoint(rows, put).await
            })
            .await
        })
        .await;
        if !put.messages.is_empty() {
            let conversation = &put.conversation;
            self.record_write(conversation.id, conversation.user_id.as_ref());
        }
        stored
    }

    async fn put_writes(&self, put: &PutWrites) -> Result<(), StoreError> {
        let pool = &self.pool;
        let started = Instant::now();
        if attempts::write(pool, |_| unlocked::put_writes(pool, put)).await? {
            return Ok(());
        }
        attempts::transaction(pool, || async {
            attempts::may_start(started)?;
            let (id, limit) = (put.conversation.id, STATEMENT_TIMEOUT);
            write(pool, id, Invalidation::Never, limit, async |rows| {
                checkpoints::put_writes(rows, put).await
            })
            .await
        })
        .await
    }

    async fn put_contents(
        &self,
        conversation: &ConversationRef,
        thread_name: Option<&str>,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        let (pool, limit) = (&self.pool, STATEMENT_TIMEOUT);
        attempts::transaction(pool, || {
            write(
                pool,
                conversation.id,
                Invalidation::Never,
                limit,
                async |rows| {
                    checkpoints::put_contents(rows, conversation, thread_name, contents).await
                },
            )
        })
        .await
    }

    async fn checkpoint(
        &self,
        conversation: &ConversationRef,
        namespace: &CheckpointNamespace,
        id: Option<CheckpointId>,
    ) -> Result<CheckpointPage, StoreError> {
        attempts::read(&self.pool, || {
            read_snapshot(&self.pool, async |rows| {
                checkpoints::read_checkpoint(rows, conversation, namespace, id).await
            })
        })
        .await
    }

    async fn checkpoint_contents(
        &self,
        conversation: &ConversationRef,
        digests: &[ContentDigest],
    ) -> Result<Vec<Bytes>, StoreError> {
        attempts::read(&self.pool, || {
            read(&self.pool, async |rows| {
                checkpoints::read_contents(rows, conversation, digests).await
            })
        })
        .await
    }

    async fn checkpoints(&self, query: &CheckpointQuery) -> Result<CheckpointPage, StoreError> {
        attempts::read(&self.pool, || {
            read_snapshot(&self.pool, async |rows| {
                checkpoints::read_page(rows, query).await
            })
        })
        .await
    }

    async fn checkpoint_ancestors(
        &self,
        query: &AncestorQuery,
    ) -> Result<CheckpointPage, StoreError> {
        attempts::read(&self.pool, || {
            read_snapshot(&self.pool, async |rows| {
                checkpoints::read_ancestors(rows, query).await
            })
        })
        .await
    }

    async fn copy_checkpoints(
        &self,
        source: &ConversationRef,
        target: &ConversationRef,
        thread_name: Option<&str>,
    ) -> Result<(), StoreError> {
        let _permit = self.start_removal().await?;
        let (pool, limit) = (&self.pool, REMOVAL_TIMEOUT);
        attempts::transaction(pool, || {
            write(pool, target.id, Invalidation::Never, limit, async |rows| {
                copy::copy_thread(rows, source, target, thread_name).await
            })
        })
        .await
    }

    async fn prune_checkpoints(&self, conversation: &ConversationRef) -> Result<i64, StoreError> {
        self.remove_checkpoints(conversation, &Selection::AllButLatest)
            .await
    }

    async fn conversations_of_runs(
        &self,
        runs: &[ContentDigest],
        user: Option<&UserId>,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let runs: Vec<Uuid> = runs.iter().map(|run| run.as_uuid()).collect();
        let runs = &runs;
        attempts::read(&self.pool, || {
            read(&self.pool, async |rows| {
                let found: Vec<Uuid> = query_scalar(OF_RUNS)
                    .bind(runs)
                    .bind(user.map(UserId::as_str))
                    .bind(after.map(ConversationId::as_uuid))
                    .bind(i64::from(limit))
                    .fetch_all(&mut *rows.connection)
                    .await?;
                Ok(found.into_iter().map(ConversationId::from_uuid).collect())
            })
        })
        .await
    }

    async fn delete_runs(
        &self,
        conversation: &ConversationRef,
        runs: &[ContentDigest],
    ) -> Result<i64, StoreError> {
        self.remove_checkpoints(conversation, &Selection::of_runs(runs))
            .await
    }
}
