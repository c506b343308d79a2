//! Changes of lineages, for both databases: the statements and their order are the same, the
//! locks around them differ. They are a macro for the same reason as [`reads`](super::reads).

use super::StoreError;

/// Maximum number of ranges in the lineage of a branch, which is the depth of branches: each branch
/// adds at most one range to those of its parent. Each branch stores its ranges, and removals examine
/// them. In SQLite, where all writes share one writer, those of a branch of this depth take a few
/// milliseconds.
pub const MAX_BRANCH_DEPTH: i64 = 100;

/// Rejects a branch whose lineage would have more ranges than [`MAX_BRANCH_DEPTH`].
///
/// # Errors
///
/// Fails with [`StoreError::TooDeep`] if the branch would exceed the depth.
pub(super) fn check_depth(ranges: i64) -> Result<(), StoreError> {
    if ranges > MAX_BRANCH_DEPTH {
        return Err(StoreError::TooDeep {
            max: MAX_BRANCH_DEPTH,
        });
    }
    Ok(())
}

/// Defines `share`, `truncate_history`, `is_titled_after` and `delete_history` for a kind of
/// connection and the type of its key columns. `$remove` is a function that deletes the messages of ranges that no
/// conversation contains any more, and returns those that will be deleted later.
macro_rules! lineage {
    ($connection:ty, $key:ty, $remove:path) => {
        use sqlx::{query, query_as, query_scalar};

        use super::effects::apply_effects;
        use $crate::store::{
            effects::{RemovalEffect, is_derived},
            lineage::check_depth,
            operation_error::OperationError,
            sql,
        };

        /// Range of the messages that are stored under an id: the id, the number before
        /// the first, and the last number.
        pub(super) type LineageRange = ($key, i64, i64);

        /// Adds the messages that the parent contains up to `at_seq` to the lineage of a
        /// branch. `own_after` is the number after which the parent's own messages begin.
        pub(super) async fn share(
            connection: &mut $connection,
            branch: $key,
            parent: $key,
            own_after: i64,
            at_seq: i64,
        ) -> Result<(), OperationError> {
            let ranges: i64 = query_scalar(sql::COUNT_RANGES)
                .bind(parent)
                .bind(at_seq)
                .fetch_one(&mut *connection)
                .await?;
            check_depth(ranges)?;
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
        /// other conversation contains. Returns the ranges that will be deleted later.
        pub(super) async fn delete_history(
            connection: &mut $connection,
            conversation: $key,
            delete: &'static str,
        ) -> Result<Vec<LineageRange>, OperationError> {
            let unshared = find_unshared(connection, conversation, 0).await?;
            query(delete)
                .bind(conversation)
                .execute(&mut *connection)
                .await?;
            $remove(connection, unshared.ranges).await
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
        /// the number of messages that were removed from the conversation, and the ranges that
        /// will be deleted later.
        pub(super) async fn truncate_history(
            connection: &mut $connection,
            point: &TruncationPoint,
        ) -> Result<(i64, Vec<LineageRange>), OperationError> {
            let TruncationPoint {
                conversation,
                after_seq,
                ..
            } = *point;
            let clears_title = is_titled_after(connection, conversation, after_seq).await?;
            let (shared, shared_tokens) = if point.own_after == 0 {
                (0, 0)
            } else {
                count(connection, sql::COUNT_SHARED, conversation, after_seq).await?
            };
            let own_from = after_seq.max(point.own_after);
            let (own, own_tokens) =
                count(connection, sql::COUNT_OWN, conversation, own_from).await?;
            let unshared = find_unshared(connection, conversation, after_seq).await?;
            for statement in sql::TRUNCATE_LINEAGE {
                query(statement)
                    .bind(conversation)
                    .bind(after_seq)
                    .execute(&mut *connection)
                    .await?;
            }
            let deferred = $remove(connection, unshared.ranges).await?;
            let keeps_own = deferred
                .iter()
                .any(|(source, _, upto)| *source == conversation && *upto > own_from);
            if keeps_own || unshared.own_referenced_upto > own_from && own > 0 {
                exclude_own(connection, point).await?;
            }
            let effect = RemovalEffect {
                conversation: conversation.into(),
                after_seq,
                tokens: shared_tokens + own_tokens,
                clears_title,
            };
            apply_effects(connection, &[effect]).await?;
            Ok((shared + own, deferred))
        }

        /// Messages that only one conversation contains.
        struct UnsharedMessages {
            ranges: Vec<LineageRange>,
            /// Last number up to which other conversations contain its own messages.
            own_referenced_upto: i64,
        }

        /// Finds the messages after a number that only this conversation contains. The caller
        /// prevents concurrent removals of the same messages.
        async fn find_unshared(
            connection: &mut $connection,
            conversation: $key,
            after_seq: i64,
        ) -> Result<UnsharedMessages, OperationError> {
            let found: Vec<($key, i64, i64, Option<i64>, bool)> = query_as(sql::UNSHARED)
                .bind(conversation)
                .bind(after_seq)
                .fetch_all(connection)
                .await?;
            let own = found.iter().find(|(.., is_own)| *is_own);
            let own_referenced_upto = own.and_then(|own| own.3).unwrap_or_default();
            let ranges = found
                .into_iter()
                .map(|(source, range_after, upto_seq, referenced_upto, _)| {
                    let referenced_upto = referenced_upto.unwrap_or_default();
                    let from = after_seq.max(range_after).max(referenced_upto);
                    (source, from, upto_seq)
                })
                .filter(|(_, from, upto_seq)| from < upto_seq);
            Ok(UnsharedMessages {
                ranges: ranges.collect(),
                own_referenced_upto,
            })
        }

        /// Whether the title of a conversation was derived from a message after a number.
        pub(super) async fn is_titled_after(
            connection: &mut $connection,
            conversation: $key,
            after_seq: i64,
        ) -> Result<bool, OperationError> {
            let (title, title_seq): (Option<String>, Option<i64>) = query_as(sql::TITLE)
                .bind(conversation)
                .fetch_one(&mut *connection)
                .await?;
            let Some(title) = title else {
                return Ok(false);
            };
            if let Some(seq) = title_seq {
                return Ok(seq > after_seq);
            }
            let texts: Vec<String> = query_scalar(sql::USER_TEXTS)
                .bind(conversation)
                .bind(after_seq)
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
