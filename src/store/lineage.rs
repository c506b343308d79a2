//! Changes of lineages, for both databases: the statements and their order are the same, the
//! locks around them differ. They are a macro for the same reason as [`reads`](super::reads).

/// Defines `share`, `truncate_history` and `delete_history` for a kind of connection and
/// the type of its key columns.
macro_rules! lineage {
    ($connection:ty, $key:ty) => {
        use sqlx::{query, query_as, query_scalar};

        use super::effects::apply_effects;
        use $crate::store::{
            effects::{RemovalEffect, is_derived},
            operation_error::OperationError,
            sql,
        };

        /// Range of the messages that are stored under an id: the id, the number before
        /// the first, and the last number.
        type LineageRange = ($key, i64, i64);

        /// Adds the messages that the parent contains up to `at_seq` to the lineage of a
        /// branch. `own_after` is the number after which the parent's own messages begin.
        pub(super) async fn share(
            connection: &mut $connection,
            branch: $key,
            parent: $key,
            own_after: i64,
            at_seq: i64,
        ) -> Result<(), OperationError> {
            query(sql::COPY_LINEAGE)
                .bind(branch)
                .bind(parent)
                .bind(at_seq)
                .execute(&mut *connection)
                .await?;
            if at_seq > own_after {
                add_range(connection, branch, (parent, own_after, at_seq)).await?;
            }
            Ok(())
        }

        /// Deletes a conversation's row with the statement `delete`, and all messages that no
        /// other conversation contains.
        pub(super) async fn delete_history(
            connection: &mut $connection,
            conversation: $key,
            delete: &'static str,
        ) -> Result<(), OperationError> {
            let ranges = read_lineage(connection, conversation).await?;
            query(delete)
                .bind(conversation)
                .execute(&mut *connection)
                .await?;
            delete_unreferenced(connection, (conversation, 0, i64::MAX)).await?;
            for range in ranges {
                if range.0 != conversation {
                    delete_unreferenced(connection, range).await?;
                }
            }
            Ok(())
        }

        /// Point after which a history is removed.
        pub(super) struct TruncationPoint {
            pub(super) conversation: $key,
            pub(super) after_seq: i64,
            /// Last number that the conversation has assigned.
            pub(super) last_seq: i64,
            /// Number after which the conversation's own messages begin.
            pub(super) own_after: i64,
        }

        /// Deletes the messages after a point, or hides those that a branch contains. Returns
        /// the number of messages that were removed from the conversation.
        pub(super) async fn truncate_history(
            connection: &mut $connection,
            point: &TruncationPoint,
        ) -> Result<i64, OperationError> {
            let TruncationPoint {
                conversation,
                after_seq,
                ..
            } = *point;
            let ranges = read_lineage(connection, conversation).await?;
            let clears_title = removes_title(connection, point).await?;
            let (shared, shared_tokens) = if ranges.is_empty() {
                (0, 0)
            } else {
                count(connection, sql::COUNT_SHARED, conversation, after_seq).await?
            };
            let own_from = after_seq.max(point.own_after);
            let (own, own_tokens) =
                count(connection, sql::COUNT_OWN, conversation, own_from).await?;
            for statement in sql::TRUNCATE_LINEAGE {
                query(statement)
                    .bind(conversation)
                    .bind(after_seq)
                    .execute(&mut *connection)
                    .await?;
            }
            query(sql::DELETE_OWN)
                .bind(conversation)
                .bind(after_seq)
                .execute(&mut *connection)
                .await?;
            if count(connection, sql::COUNT_OWN, conversation, own_from)
                .await?
                .0
                > 0
            {
                exclude_own(connection, point).await?;
            }
            for (source, range_after, upto_seq) in ranges {
                if upto_seq > after_seq {
                    let removed = (source, range_after.max(after_seq), upto_seq);
                    delete_unreferenced(connection, removed).await?;
                }
            }
            let effect = RemovalEffect {
                conversation: conversation.into(),
                after_seq,
                tokens: shared_tokens + own_tokens,
                clears_title,
            };
            apply_effects(connection, &[effect]).await?;
            Ok(shared + own)
        }

        /// Whether the title was derived from a message after the point.
        async fn removes_title(
            connection: &mut $connection,
            point: &TruncationPoint,
        ) -> Result<bool, OperationError> {
            let (title, title_seq): (Option<String>, Option<i64>) = query_as(sql::TITLE)
                .bind(point.conversation)
                .fetch_one(&mut *connection)
                .await?;
            let Some(title) = title else {
                return Ok(false);
            };
            if let Some(seq) = title_seq {
                return Ok(seq > point.after_seq);
            }
            let texts: Vec<String> = query_scalar(sql::USER_TEXTS)
                .bind(point.conversation)
                .bind(point.after_seq)
                .fetch_all(connection)
                .await?;
            Ok(texts.iter().any(|text| is_derived(&title, text)))
        }

        /// Excludes the own messages after a point, which branches still contain, from the
        /// conversation. Its own messages up to the point become a range of its lineage.
        async fn exclude_own(
            connection: &mut $connection,
            point: &TruncationPoint,
        ) -> Result<(), OperationError> {
            if point.after_seq > point.own_after {
                let range = (point.conversation, point.own_after, point.after_seq);
                add_range(connection, point.conversation, range).await?;
            }
            query(sql::EXCLUDE_OWN)
                .bind(point.conversation)
                .bind(point.last_seq)
                .execute(connection)
                .await?;
            Ok(())
        }

        async fn read_lineage(
            connection: &mut $connection,
            conversation: $key,
        ) -> Result<Vec<LineageRange>, OperationError> {
            Ok(query_as(sql::LINEAGE)
                .bind(conversation)
                .fetch_all(connection)
                .await?)
        }

        async fn add_range(
            connection: &mut $connection,
            conversation: $key,
            (source, after_seq, upto_seq): LineageRange,
        ) -> Result<(), OperationError> {
            query(sql::ADD_LINEAGE)
                .bind(conversation)
                .bind(source)
                .bind(after_seq)
                .bind(upto_seq)
                .execute(connection)
                .await?;
            Ok(())
        }

        async fn delete_unreferenced(
            connection: &mut $connection,
            (source, after_seq, upto_seq): LineageRange,
        ) -> Result<(), OperationError> {
            query(sql::DELETE_UNREFERENCED)
                .bind(source)
                .bind(after_seq)
                .bind(upto_seq)
                .execute(connection)
                .await?;
            Ok(())
        }

        /// Counts messages and their tokens.
        async fn count(
            connection: &mut $connection,
            statement: &'static str,
            conversation: $key,
            after_seq: i64,
        ) -> Result<(i64, i64), OperationError> {
            Ok(query_as(statement)
                .bind(conversation)
                .bind(after_seq)
                .fetch_one(connection)
                .await?)
        }
    };
}

pub(super) use lineage;
