//! How a conversation gives up messages, which others may show: the statements are
//! the same for both databases and so is their order. A macro, as in
//! [`reads`](super::reads); locks are each store's own.

/// Defines `Range`, `lineage`, `release` and `End` for a kind of connection and what
/// that database keeps of an id.
macro_rules! lineage {
    ($connection:ty, $id:ty) => {
        use sqlx::{query, query_as, query_scalar};

        use $crate::store::{failure::OperationError, sql};

        /// A range of the messages that are kept under an id.
        type Range = ($id, i64, i64);

        async fn lineage(
            connection: &mut $connection,
            conversation: $id,
        ) -> Result<Vec<Range>, OperationError> {
            Ok(query_as(sql::LINEAGE)
                .bind(conversation)
                .fetch_all(connection)
                .await?)
        }

        async fn release(
            connection: &mut $connection,
            (source, after_seq, upto_seq): Range,
        ) -> Result<(), OperationError> {
            query(sql::RELEASE)
                .bind(source)
                .bind(after_seq)
                .bind(upto_seq)
                .execute(connection)
                .await?;
            Ok(())
        }

        /// Where a conversation is to end.
        struct End {
            conversation: $id,
            after_seq: i64,
            last_seq: i64,
            own_after: i64,
        }

        impl End {
            /// Removes what comes after it, or hides it where a branch shows it, and gives
            /// how many messages the conversation has lost.
            async fn cut(&self, connection: &mut $connection) -> Result<i64, OperationError> {
                let shown = lineage(connection, self.conversation).await?;
                let shared = if shown.is_empty() {
                    0
                } else {
                    self.count(connection, sql::COUNT_SHARED, self.after_seq)
                        .await?
                };
                let own_from = self.after_seq.max(self.own_after);
                let own = self.count(connection, sql::COUNT_OWN, own_from).await?;
                for statement in sql::CUT_LINEAGE {
                    query(statement)
                        .bind(self.conversation)
                        .bind(self.after_seq)
                        .execute(&mut *connection)
                        .await?;
                }
                query(sql::REMOVE_OWN)
                    .bind(self.conversation)
                    .bind(self.after_seq)
                    .execute(&mut *connection)
                    .await?;
                if self.count(connection, sql::COUNT_OWN, own_from).await? > 0 {
                    self.hide(connection).await?;
                }
                for (source, after_seq, upto_seq) in shown {
                    if upto_seq > self.after_seq {
                        let given_up = (source, after_seq.max(self.after_seq), upto_seq);
                        release(connection, given_up).await?;
                    }
                }
                Ok(shared + own)
            }

            /// Shows none of the own messages that branches keep.
            async fn hide(&self, connection: &mut $connection) -> Result<(), OperationError> {
                if self.after_seq > self.own_after {
                    query(sql::ADD_LINEAGE)
                        .bind(self.conversation)
                        .bind(self.conversation)
                        .bind(self.own_after)
                        .bind(self.after_seq)
                        .execute(&mut *connection)
                        .await?;
                }
                query(sql::HIDE_OWN)
                    .bind(self.conversation)
                    .bind(self.last_seq)
                    .execute(connection)
                    .await?;
                Ok(())
            }

            async fn count(
                &self,
                connection: &mut $connection,
                statement: &'static str,
                after_seq: i64,
            ) -> Result<i64, OperationError> {
                Ok(query_scalar(statement)
                    .bind(self.conversation)
                    .bind(after_seq)
                    .fetch_one(connection)
                    .await?)
            }
        }
    };
}

pub(super) use lineage;
