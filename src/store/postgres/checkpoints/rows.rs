use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::{
    super::{append::append_in, store_connection::StoreConnection},
    columns::{self, ContentColumns},
    statements,
};
use crate::{
    domain::{ConversationRef, UserId},
    store::{
        Appended, Invalidation,
        checkpoints::{
            CheckpointColumns, CheckpointRow, CheckpointRows, Content, HeadColumns, Heads,
            NewCheckpointRow, NewMessages, NewValueRow, NewWritesRow, SequenceRow, ThreadPlace,
            ValueColumns, ValueHead, ValueRow,
        },
        operation_error::OperationError,
    },
    text_analysis::Languages,
};

type Outcome<T> = Result<T, OperationError>;
type PlaceRow = (i64, i64, Option<i64>, Option<i64>);

/// Connection whose rows of checkpoints are read and written.
pub(super) struct CheckpointConnection<'c> {
    pub(super) connection: &'c mut StoreConnection,
    /// Languages in which messages are analyzed for the search.
    pub(super) languages: Languages,
}

impl CheckpointConnection<'_> {
    /// Copies all rows of a namespace to another one, except those that exist.
    pub(super) async fn copy_namespace(&mut self, from: i64, to: i64) -> Outcome<()> {
        for statement in statements::COPY_NAMESPACE {
            query(statement)
                .bind(from)
                .bind(to)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn copy_contents(&mut self, from: i64, to: i64) -> Outcome<()> {
        let copied = query(statements::COPY_CONTENTS).bind(from).bind(to);
        copied.execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Lets writes fail that were planned with what a removal deletes.
    pub(super) async fn count_removal(&mut self, thread: i64) -> Outcome<()> {
        let counted = query(statements::COUNT_REMOVAL).bind(thread);
        counted.execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Deletes checkpoints with their writes, and clears references to them as parents.
    pub(super) async fn delete_checkpoints(&mut self, namespace: i64, ids: &[Uuid]) -> Outcome<()> {
        for statement in statements::DELETE_CHECKPOINTS {
            query(statement)
                .bind(namespace)
                .bind(ids)
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn delete_values(&mut self, namespace: i64, keys: &[Uuid]) -> Outcome<()> {
        let deleted = query(statements::DELETE_VALUES).bind(namespace).bind(keys);
        deleted.execute(&mut *self.connection).await?;
        Ok(())
    }

    pub(super) async fn delete_contents(&mut self, thread: i64, digests: &[Uuid]) -> Outcome<()> {
        let deleted = query(statements::DELETE_CONTENTS)
            .bind(thread)
            .bind(digests);
        deleted.execute(&mut *self.connection).await?;
        Ok(())
    }
}

impl CheckpointRows for CheckpointConnection<'_> {
    async fn lock(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> Outcome<Option<ThreadPlace>> {
        let locked: Option<Uuid> = query_scalar(statements::LOCK)
            .bind(conversation.id.as_uuid())
            .bind(conversation.user_id.as_ref().map(UserId::as_str))
            .fetch_optional(&mut *self.connection)
            .await?;
        if locked.is_none() {
            return Ok(None);
        }
        let thread = query(statements::LOCK_THREAD).bind(conversation.id.as_uuid());
        thread.execute(&mut *self.connection).await?;
        self.find(conversation, namespace).await
    }

    async fn find(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> Outcome<Option<ThreadPlace>> {
        let found: Option<PlaceRow> = query_as(statements::FIND)
            .bind(conversation.id.as_uuid())
            .bind(conversation.user_id.as_ref().map(UserId::as_str))
            .bind(namespace)
            .fetch_optional(&mut *self.connection)
            .await?;
        Ok(
            found.map(|(last_seq, own_after, thread, namespace)| ThreadPlace {
                last_seq,
                thread,
                namespace,
                own_after,
            }),
        )
    }

    async fn add_thread(&mut self, conversation: Uuid, name: Option<&str>) -> Outcome<i64> {
        let added = query_scalar(statements::ADD_THREAD)
            .bind(conversation)
            .bind(name);
        Ok(added.fetch_one(&mut *self.connection).await?)
    }

    async fn add_namespace(&mut self, thread: i64, namespace: &str) -> Outcome<i64> {
        let added = query_scalar(statements::ADD_NAMESPACE)
            .bind(thread)
            .bind(namespace);
        Ok(added.fetch_one(&mut *self.connection).await?)
    }

    async fn namespaces(
        &mut self,
        thread: i64,
        after: i64,
        limit: u32,
    ) -> Outcome<Vec<(i64, String)>> {
        let found = query_as(statements::NAMESPACES)
            .bind(thread)
            .bind(after)
            .bind(i64::from(limit));
        Ok(found.fetch_all(&mut *self.connection).await?)
    }

    async fn add_contents(&mut self, thread: i64, contents: Vec<Content>) -> Outcome<()> {
        let columns = ContentColumns::new(&contents);
        query(statements::ADD_CONTENTS)
            .bind(thread)
            .bind(columns.digests)
            .bind(columns.sizes)
            .bind(columns.data)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn count_contents(&mut self, thread: i64, digests: &[Uuid]) -> Outcome<i64> {
        let counted = query_scalar(statements::COUNT_CONTENTS)
            .bind(thread)
            .bind(digests);
        Ok(counted.fetch_one(&mut *self.connection).await?)
    }

    async fn contents(
        &mut self,
        thread: i64,
        digests: &[Uuid],
        max_bytes: i64,
    ) -> Outcome<Vec<Content>> {
        let found: Vec<(Uuid, i32, Vec<u8>)> = query_as(statements::CONTENTS)
            .bind(thread)
            .bind(digests)
            .bind(max_bytes)
            .fetch_all(&mut *self.connection)
            .await?;
        let contents = found
            .into_iter()
            .map(|(digest, size, data)| Content { digest, size, data });
        Ok(contents.collect())
    }

    async fn values(&mut self, namespace: i64, keys: &[Uuid]) -> Outcome<Vec<ValueRow>> {
        let found: Vec<ValueColumns> = query_as(statements::VALUES)
            .bind(namespace)
            .bind(keys)
            .fetch_all(&mut *self.connection)
            .await?;
        Ok(found.into_iter().map(ValueRow::new).collect())
    }

    async fn heads(&mut self, namespace: i64, keys: &[Uuid]) -> Outcome<Heads> {
        let found: Vec<HeadColumns> = query_as(statements::HEADS)
            .bind(namespace)
            .bind(keys)
            .fetch_all(&mut *self.connection)
            .await?;
        let last_sequence = query_scalar(statements::LAST_SEQUENCE).bind(namespace);
        Ok(Heads {
            heads: found.into_iter().map(ValueHead::new).collect(),
            last_sequence: last_sequence.fetch_one(&mut *self.connection).await?,
        })
    }

    async fn sequence(
        &mut self,
        namespace: i64,
        sequence: i32,
        items: i32,
    ) -> Outcome<Vec<(SequenceRow, Vec<u8>)>> {
        let found: Vec<(i32, i32, Vec<u8>)> = query_as(statements::SEQUENCE)
            .bind(namespace)
            .bind(sequence)
            .bind(items)
            .fetch_all(&mut *self.connection)
            .await?;
        let rows = found.into_iter().map(|(first, last, body)| {
            let row = SequenceRow {
                sequence,
                first,
                last,
            };
            (row, body)
        });
        Ok(rows.collect())
    }

    async fn add_values(&mut self, namespace: i64, values: Vec<NewValueRow>) -> Outcome<()> {
        let columns = columns::ValueColumns::new(&values);
        query(statements::ADD_VALUES)
            .bind(namespace)
            .bind(columns.keys)
            .bind(columns.sequences)
            .bind(columns.first_items)
            .bind(columns.last_items)
            .bind(columns.prefixes)
            .bind(columns.bodies)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn put_checkpoint(&mut self, namespace: i64, row: NewCheckpointRow) -> Outcome<()> {
        query(statements::PUT_CHECKPOINT)
            .bind(namespace)
            .bind(row.id)
            .bind(row.parent_id)
            .bind(row.run_id)
            .bind(row.body)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn admits_writes(
        &mut self,
        namespace: i64,
        row: &NewWritesRow,
        max: u32,
    ) -> Outcome<bool> {
        let admits = query_scalar(statements::ADMITS_WRITES)
            .bind(namespace)
            .bind(row.checkpoint_id)
            .bind(row.digest)
            .bind(i64::from(max));
        Ok(admits.fetch_one(&mut *self.connection).await?)
    }

    async fn put_writes(&mut self, namespace: i64, row: NewWritesRow) -> Outcome<()> {
        let statement = if row.replaces {
            statements::REPLACE_WRITES
        } else {
            statements::PUT_WRITES
        };
        query(statement)
            .bind(namespace)
            .bind(row.checkpoint_id)
            .bind(row.digest)
            .bind(row.body)
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    async fn checkpoint(
        &mut self,
        namespace: i64,
        id: Option<Uuid>,
    ) -> Outcome<Option<CheckpointRow>> {
        let found = match id {
            Some(id) => query_as(statements::CHECKPOINT).bind(namespace).bind(id),
            None => query_as(statements::LATEST).bind(namespace),
        };
        let found: Option<CheckpointColumns> = found.fetch_optional(&mut *self.connection).await?;
        Ok(found.map(|row| CheckpointRow::new(namespace, row)))
    }

    async fn checkpoints(
        &mut self,
        namespace: i64,
        before: Option<Uuid>,
        limit: u32,
    ) -> Outcome<Vec<CheckpointRow>> {
        let found: Vec<CheckpointColumns> = query_as(statements::CHECKPOINTS)
            .bind(namespace)
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection)
            .await?;
        let rows = found
            .into_iter()
            .map(|row| CheckpointRow::new(namespace, row));
        Ok(rows.collect())
    }

    async fn writes(
        &mut self,
        namespace: i64,
        checkpoint: Uuid,
        limit: u32,
        max_bytes: i64,
    ) -> Outcome<Vec<Vec<u8>>> {
        let found = query_scalar(statements::WRITES)
            .bind(namespace)
            .bind(checkpoint)
            .bind(i64::from(limit))
            .bind(max_bytes);
        Ok(found.fetch_all(&mut *self.connection).await?)
    }

    async fn messages(&mut self, ids: &[(Uuid, Uuid)]) -> Outcome<Vec<(Uuid, i64, Uuid)>> {
        let (sources, ids): (Vec<Uuid>, Vec<Uuid>) = ids.iter().copied().unzip();
        Ok(query_as(statements::MESSAGES)
            .bind(sources)
            .bind(ids)
            .fetch_all(&mut *self.connection)
            .await?)
    }

    async fn lineage(&mut self, conversation: Uuid) -> Outcome<Vec<(Uuid, i64, i64)>> {
        Ok(query_as(statements::LINEAGE)
            .bind(conversation)
            .fetch_all(&mut *self.connection)
            .await?)
    }

    async fn append(&mut self, new: NewMessages) -> Outcome<Appended> {
        // The transaction records the pending invalidation.
        let append = new.into_append(Invalidation::Never);
        append_in(self.connection, self.languages, &append).await
    }

    async fn checkpoints_of_runs(&mut self, namespace: i64, runs: &[Uuid]) -> Outcome<Vec<Uuid>> {
        let found = query_scalar(statements::OF_RUNS).bind(namespace).bind(runs);
        Ok(found.fetch_all(&mut *self.connection).await?)
    }

    async fn values_after(
        &mut self,
        namespace: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> Outcome<Vec<ValueRow>> {
        let found: Vec<ValueColumns> = query_as(statements::VALUES_AFTER)
            .bind(namespace)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.connection)
            .await?;
        Ok(found.into_iter().map(ValueRow::new).collect())
    }

    async fn writes_after(
        &mut self,
        namespace: i64,
        after: Option<(Uuid, Uuid)>,
        limit: u32,
    ) -> Outcome<Vec<(Uuid, Uuid, Vec<u8>)>> {
        let found = query_as(statements::WRITES_AFTER)
            .bind(namespace)
            .bind(after.map(|(checkpoint, _)| checkpoint))
            .bind(after.map(|(_, digest)| digest))
            .bind(i64::from(limit));
        Ok(found.fetch_all(&mut *self.connection).await?)
    }

    async fn digests_after(
        &mut self,
        thread: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> Outcome<Vec<Uuid>> {
        let found = query_scalar(statements::DIGESTS_AFTER)
            .bind(thread)
            .bind(after)
            .bind(i64::from(limit));
        Ok(found.fetch_all(&mut *self.connection).await?)
    }
}
