//! Compactions, for both databases. They are a macro for the same reason as
//! [`reads`](super::reads).

/// Defines `compact_history` for a kind of connection, the types of its key and time columns, and
/// the function that converts a UUID to the type of a key column.
macro_rules! compactions {
    ($connection:ty, $key:path, $time:path) => {
        use sqlx::{query, query_as};

        use $crate::store::{Compaction, StoreError, operation_error::OperationError, sql};

        /// Stores or removes the summary of a conversation, whose row is locked and which ends at
        /// `last_seq`.
        async fn compact_history(
            connection: &mut $connection,
            compaction: &Compaction,
            last_seq: i64,
        ) -> Result<(), OperationError> {
            let upto_seq = compaction.upto_seq;
            if upto_seq > last_seq {
                let field = "upto_seq";
                return Err(StoreError::BeyondEnd { field, last_seq }.into());
            }
            let id = $key(compaction.conversation.id.as_uuid());
            let (replaced_tokens, uncompacted_tokens) = sum_tokens(connection, compaction).await?;
            if upto_seq == 0 {
                query(sql::DELETE_COMPACTION)
                    .bind(id)
                    .execute(&mut *connection)
                    .await?;
            } else {
                query(sql::PUT_COMPACTION)
                    .bind(id)
                    .bind(upto_seq)
                    .bind($key(compaction.summary_id.as_uuid()))
                    .bind(compaction.summary.as_str())
                    .bind(compaction.token_count)
                    .bind(replaced_tokens)
                    .bind(<$time>::from(compaction.at))
                    .execute(&mut *connection)
                    .await?;
            }
            query(sql::SET_COMPACTED)
                .bind(id)
                .bind(upto_seq)
                .bind(uncompacted_tokens)
                .execute(connection)
                .await?;
            Ok(())
        }

        /// Sums the tokens of the messages that the new summary stands for, and of those after
        /// them. Messages that the earlier summary stands for are not counted again, so that the
        /// cost does not depend on the length of a conversation that is compacted regularly.
        async fn sum_tokens(
            connection: &mut $connection,
            compaction: &Compaction,
        ) -> Result<(i64, i64), OperationError> {
            let id = $key(compaction.conversation.id.as_uuid());
            let earlier: Option<(i64, i64)> = query_as(sql::COMPACTION)
                .bind(id)
                .fetch_optional(&mut *connection)
                .await?;
            let (counted_upto, counted) = earlier
                .filter(|(earlier_upto, _)| *earlier_upto <= compaction.upto_seq)
                .unwrap_or((0, 0));
            let (replaced, uncompacted): (i64, i64) = query_as(sql::SUM_TOKENS)
                .bind(id)
                .bind(counted_upto)
                .bind(compaction.upto_seq)
                .fetch_one(connection)
                .await?;
            Ok((counted + replaced, uncompacted))
        }
    };
}

pub(super) use compactions;
