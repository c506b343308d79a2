//! Checkpoints in SQLite: transactions around what both databases share.

mod copy;
pub(super) mod removal;
pub(super) mod removed_threads;
mod rows;
mod statements;

use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Connection as _, SqliteConnection, query_scalar, types::Json};
use tokio::time::Instant;
use uuid::{Uuid, fmt::Hyphenated};

use self::removal::write_to_thread;
use super::{SqliteStore, connection};
use crate::{
    domain::{
        CheckpointId, CheckpointNamespace, ContentDigest, Contents, ConversationId,
        ConversationRef, UserId,
    },
    store::{
        AncestorQuery, CheckpointPage, CheckpointQuery, CheckpointStore, PutCheckpoint, PutWrites,
        StoreError, StoredCheckpoint,
        checkpoints::{self, Selection},
        operation_error::OperationError,
    },
};

const OF_RUNS: &str = "SELECT DISTINCT t.conversation_id FROM json_each($1) w \
        CROSS JOIN checkpoint_states c ON c.run_id = unhex(w.value) \
        CROSS JOIN checkpoint_namespaces n ON n.id = c.namespace_id \
        CROSS JOIN checkpoint_threads t ON t.id = n.thread_id \
        CROSS JOIN conversations o ON o.id = t.conversation_id \
    WHERE ($2 IS NULL OR o.user_id = $2) AND t.conversation_id > $3 \
    ORDER BY t.conversation_id LIMIT CAST($4 AS INTEGER)";

const HAVE_CHECKPOINTS: &str = "SELECT EXISTS (SELECT 1 FROM json_each($1) w \
    CROSS JOIN checkpoint_threads t ON t.conversation_id = w.value)";

/// Rejects a removal of messages from conversations whose checkpoints contain them.
pub(super) async fn reject_checkpoints(
    connection: &mut SqliteConnection,
    conversations: impl Iterator<Item = Uuid> + Send,
) -> Result<(), OperationError> {
    let ids: Vec<String> = conversations.map(|id| id.to_string()).collect();
    let found = query_scalar(HAVE_CHECKPOINTS).bind(Json(ids));
    if found.fetch_one(connection).await? {
        return Err(StoreError::HasCheckpoints.into());
    }
    Ok(())
}

impl SqliteStore {
    async fn write_checkpoints<T>(
        &self,
        statements: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, OperationError>,
    ) -> Result<T, StoreError> {
        let written = self.write_once(async {
            let mut transaction = connection::begin(&self.writer).await?;
            let written = statements(&mut transaction).await;
            connection::end(transaction, written).await
        });
        let written = written.await;
        if let Err(StoreError::Full(_)) = &written {
            // The next write finds the room.
            self.checkpointer.empty_log().await;
        }
        written
    }

    /// Deletes the rows of removed threads. See [`Sweeper::sweep_threads`](super::Sweeper).
    pub(super) async fn sweep_threads(&self) {
        let exist = self.read_checkpoints(async |rows| removed_threads::exist(rows).await);
        if !matches!(exist.await, Ok(false)) {
            self.sweeper.sweep_threads().await;
        }
    }

    /// Runs reads that see one state of the database.
    async fn read_checkpoints<T>(
        &self,
        statements: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, OperationError>,
    ) -> Result<T, StoreError> {
        super::read(async {
            let mut reader = connection::reader(&self.readers).await?;
            let mut transaction = reader.begin().await?;
            let read = statements(&mut transaction).await;
            transaction.rollback().await?;
            read
        })
        .await
    }
}

#[async_trait]
impl CheckpointStore for SqliteStore {
    async fn put_checkpoint(&self, put: &PutCheckpoint) -> Result<StoredCheckpoint, StoreError> {
        write_to_thread!(self, &put.conversation, async |rows| {
            checkpoints::put_checkpoint(rows, put).await
        })
    }

    async fn put_writes(&self, put: &PutWrites) -> Result<(), StoreError> {
        write_to_thread!(self, &put.conversation, async |rows| {
            checkpoints::put_writes(rows, put).await
        })
    }

    async fn put_contents(
        &self,
        conversation: &ConversationRef,
        thread_name: Option<&str>,
        contents: &Contents,
    ) -> Result<(), StoreError> {
        write_to_thread!(self, conversation, async |rows| {
            checkpoints::put_contents(rows, conversation, thread_name, contents).await
        })
    }

    async fn checkpoint(
        &self,
        conversation: &ConversationRef,
        namespace: &CheckpointNamespace,
        id: Option<CheckpointId>,
    ) -> Result<CheckpointPage, StoreError> {
        self.read_checkpoints(async |rows| {
            checkpoints::read_checkpoint(rows, conversation, namespace, id).await
        })
        .await
    }

    async fn checkpoint_contents(
        &self,
        conversation: &ConversationRef,
        digests: &[ContentDigest],
    ) -> Result<Vec<Bytes>, StoreError> {
        self.read_checkpoints(async |rows| {
            checkpoints::read_contents(rows, conversation, digests).await
        })
        .await
    }

    async fn checkpoints(&self, query: &CheckpointQuery) -> Result<CheckpointPage, StoreError> {
        self.read_checkpoints(async |rows| checkpoints::read_page(rows, query).await)
            .await
    }

    async fn checkpoint_ancestors(
        &self,
        query: &AncestorQuery,
    ) -> Result<CheckpointPage, StoreError> {
        self.read_checkpoints(async |rows| checkpoints::read_ancestors(rows, query).await)
            .await
    }

    async fn copy_checkpoints(
        &self,
        source: &ConversationRef,
        target: &ConversationRef,
        thread_name: Option<&str>,
    ) -> Result<(), StoreError> {
        self.wait_for_removal(source, Instant::now() + removal::MAX_WAIT)
            .await?;
        copy::copy_thread(self, source, target, thread_name).await
    }

    async fn prune_checkpoints(&self, conversation: &ConversationRef) -> Result<i64, StoreError> {
        removal::remove(self, conversation, &Selection::AllButLatest).await
    }

    async fn conversations_of_runs(
        &self,
        runs: &[ContentDigest],
        user: Option<&UserId>,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<Vec<ConversationId>, StoreError> {
        let runs: Vec<Uuid> = runs.iter().map(|run| run.as_uuid()).collect();
        self.read_checkpoints(async |connection| {
            let found: Vec<Hyphenated> = query_scalar(OF_RUNS)
                .bind(rows::list(&runs))
                .bind(user.map(UserId::as_str))
                .bind(after.map_or_else(String::new, |after| after.to_string()))
                .bind(limit)
                .fetch_all(connection)
                .await?;
            let found = found.into_iter().map(Hyphenated::into_uuid);
            Ok(found.map(ConversationId::from_uuid).collect())
        })
        .await
    }

    async fn delete_runs(
        &self,
        conversation: &ConversationRef,
        runs: &[ContentDigest],
    ) -> Result<i64, StoreError> {
        removal::remove(self, conversation, &Selection::of_runs(runs)).await
    }
}
