use sqlx::{SqliteConnection, query, query_as, query_scalar, types::Json};
use uuid::{Uuid, fmt::Hyphenated};

use super::{super::append::append_in, removal, statements};
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
};

type Outcome<T> = Result<T, OperationError>;
type PlaceRow = (i64, i64, Option<i64>, Option<i64>);

impl CheckpointRows for SqliteConnection {
    /// The transaction holds the write lock of the file.
    async fn lock(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> Outcome<Option<ThreadPlace>> {
        removal::reject_pending(self, conversation).await?;
        self.find(conversation, namespace).await
    }

    async fn find(
        &mut self,
        conversation: &ConversationRef,
        namespace: &str,
    ) -> Outcome<Option<ThreadPlace>> {
        let found: Option<PlaceRow> = query_as(statements::FIND)
            .bind(conversation.id.as_uuid().hyphenated())
            .bind(conversation.user_id.as_ref().map(UserId::as_str))
            .bind(namespace)
            .fetch_optional(self)
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
            .bind(conversation.hyphenated())
            .bind(name);
        Ok(added.fetch_one(self).await?)
    }

    async fn add_namespace(&mut self, thread: i64, namespace: &str) -> Outcome<i64> {
        let added = query_scalar(statements::ADD_NAMESPACE)
            .bind(thread)
            .bind(namespace);
        Ok(added.fetch_one(self).await?)
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
            .bind(limit);
        Ok(found.fetch_all(self).await?)
    }

    async fn add_contents(&mut self, thread: i64, contents: Vec<Content>) -> Outcome<()> {
        for content in contents {
            query(statements::ADD_CONTENT)
                .bind(thread)
                .bind(content.digest)
                .bind(content.size)
                .bind(content.data)
                .execute(&mut *self)
                .await?;
        }
        Ok(())
    }

    async fn count_contents(&mut self, thread: i64, digests: &[Uuid]) -> Outcome<i64> {
        let counted = query_scalar(statements::COUNT_CONTENTS)
            .bind(thread)
            .bind(list(digests));
        Ok(counted.fetch_one(self).await?)
    }

    async fn contents(
        &mut self,
        thread: i64,
        digests: &[Uuid],
        max_bytes: i64,
    ) -> Outcome<Vec<Content>> {
        let found: Vec<(Uuid, i32, Vec<u8>)> = query_as(statements::CONTENTS)
            .bind(thread)
            .bind(list(digests))
            .bind(max_bytes)
            .fetch_all(self)
            .await?;
        let contents = found
            .into_iter()
            .map(|(digest, size, data)| Content { digest, size, data });
        Ok(contents.collect())
    }

    async fn values(&mut self, namespace: i64, keys: &[Uuid]) -> Outcome<Vec<ValueRow>> {
        let found: Vec<ValueColumns> = query_as(statements::VALUES)
            .bind(namespace)
            .bind(list(keys))
            .fetch_all(self)
            .await?;
        Ok(found.into_iter().map(ValueRow::new).collect())
    }

    async fn heads(&mut self, namespace: i64, keys: &[Uuid]) -> Outcome<Heads> {
        let found: Vec<HeadColumns> = query_as(statements::HEADS)
            .bind(namespace)
            .bind(list(keys))
            .fetch_all(&mut *self)
            .await?;
        let last_sequence = query_scalar(statements::LAST_SEQUENCE).bind(namespace);
        Ok(Heads {
            heads: found.into_iter().map(ValueHead::new).collect(),
            last_sequence: last_sequence.fetch_one(self).await?,
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
            .fetch_all(self)
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
        for value in values {
            query(statements::ADD_VALUE)
                .bind(namespace)
                .bind(value.key)
                .bind(value.sequence.map(|row| row.sequence))
                .bind(value.sequence.map(|row| row.first))
                .bind(value.sequence.map(|row| row.last))
                .bind(value.prefix)
                .bind(value.body)
                .execute(&mut *self)
                .await?;
        }
        Ok(())
    }

    async fn put_checkpoint(&mut self, namespace: i64, row: NewCheckpointRow) -> Outcome<()> {
        query(statements::PUT_CHECKPOINT)
            .bind(namespace)
            .bind(row.id)
            .bind(row.parent_id)
            .bind(row.run_id)
            .bind(row.body)
            .execute(self)
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
            .bind(max);
        Ok(admits.fetch_one(self).await?)
    }

    async fn put_writes(&mut self, namespace: i64, row: NewWritesRow) -> Outcome<()> {
        if row.replaces {
            query(statements::FORGET_WRITES)
                .bind(namespace)
                .bind(row.checkpoint_id)
                .bind(row.digest)
                .execute(&mut *self)
                .await?;
        }
        query(statements::PUT_WRITES)
            .bind(namespace)
            .bind(row.checkpoint_id)
            .bind(row.digest)
            .bind(row.body)
            .execute(self)
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
        let found: Option<CheckpointColumns> = found.fetch_optional(self).await?;
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
            .bind(before_all(before))
            .bind(limit)
            .fetch_all(self)
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
            .bind(limit)
            .bind(max_bytes);
        Ok(found.fetch_all(self).await?)
    }

    async fn messages(&mut self, ids: &[(Uuid, Uuid)]) -> Outcome<Vec<(Uuid, i64, Uuid)>> {
        let texts: Vec<[String; 2]> = ids
            .iter()
            .map(|(source, id)| [source.to_string(), id.to_string()])
            .collect();
        let found: Vec<(Hyphenated, i64, Hyphenated)> = query_as(statements::MESSAGES)
            .bind(Json(texts))
            .fetch_all(self)
            .await?;
        let found = found.into_iter();
        let found = found.map(|(source, seq, id)| (source.into_uuid(), seq, id.into_uuid()));
        Ok(found.collect())
    }

    async fn lineage(&mut self, conversation: Uuid) -> Outcome<Vec<(Uuid, i64, i64)>> {
        let found: Vec<(Hyphenated, i64, i64)> = query_as(statements::LINEAGE)
            .bind(conversation.hyphenated())
            .fetch_all(self)
            .await?;
        let found = found.into_iter();
        Ok(found
            .map(|(id, after, upto)| (id.into_uuid(), after, upto))
            .collect())
    }

    async fn append(&mut self, new: NewMessages) -> Outcome<Appended> {
        // The transaction records the pending invalidation.
        let append = new.into_append(Invalidation::Never);
        append_in(self, &append).await
    }

    async fn checkpoints_of_runs(&mut self, namespace: i64, runs: &[Uuid]) -> Outcome<Vec<Uuid>> {
        let found = query_scalar(statements::OF_RUNS)
            .bind(namespace)
            .bind(list(runs));
        Ok(found.fetch_all(self).await?)
    }

    async fn values_after(
        &mut self,
        namespace: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> Outcome<Vec<ValueRow>> {
        let found: Vec<ValueColumns> = query_as(statements::VALUES_AFTER)
            .bind(namespace)
            .bind(after_all(after))
            .bind(limit)
            .fetch_all(self)
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
            .bind(after_all(after.map(|(checkpoint, _)| checkpoint)))
            .bind(after_all(after.map(|(_, digest)| digest)))
            .bind(limit);
        Ok(found.fetch_all(self).await?)
    }

    async fn digests_after(
        &mut self,
        thread: i64,
        after: Option<Uuid>,
        limit: u32,
    ) -> Outcome<Vec<Uuid>> {
        let found = query_scalar(statements::DIGESTS_AFTER)
            .bind(thread)
            .bind(after_all(after))
            .bind(limit);
        Ok(found.fetch_all(self).await?)
    }
}

/// Keys as a JSON array of hexadecimal texts, since a statement has no list as a parameter.
pub(super) fn list(ids: &[Uuid]) -> Json<Vec<String>> {
    Json(ids.iter().map(|id| id.simple().to_string()).collect())
}

/// Bound above all keys if there is none. A longer value is greater.
fn before_all(id: Option<Uuid>) -> Vec<u8> {
    id.map_or(vec![u8::MAX; 17], |id| id.as_bytes().to_vec())
}

/// Bound below all keys if there is none.
fn after_all(id: Option<Uuid>) -> Vec<u8> {
    id.map_or(Vec::new(), |id| id.as_bytes().to_vec())
}
