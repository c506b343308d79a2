//! Reads of conversations, for both databases. They are a macro for the same reason as
//! [`reads`](super::reads).

/// Defines `find`, `find_if_current`, `find_current`, `read_page` and
/// `read_branches` for a kind of connection, its rows, and the function that converts a
/// UUID to the type of a key column.
macro_rules! conversation_reads {
    ($connection:ty, $row:ty, $key:path) => {
        /// Reads a conversation. `None` if there is no such conversation.
        pub(super) async fn find(
            connection: &mut $connection,
            conversation: &ConversationRef,
        ) -> Result<Option<Conversation>, OperationError> {
            let row: Option<ConversationRow> = sqlx::query_as($crate::store::sql::CONVERSATION)
                .bind($key(conversation.id.as_uuid()))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .fetch_optional(connection)
                .await?;
            Ok(row.map(ConversationRow::decode).transpose()?)
        }

        /// Reads a conversation if it is the current one of the session.
        async fn find_if_current(
            connection: &mut $connection,
            conversation: &ConversationRef,
            session: SessionId,
        ) -> Result<Option<Conversation>, OperationError> {
            let statement = $crate::store::sql::CONVERSATION_IF_CURRENT;
            let row: Option<ConversationRow> = sqlx::query_as(statement)
                .bind($key(conversation.id.as_uuid()))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .bind($key(session.as_uuid()))
                .fetch_optional(connection)
                .await?;
            Ok(row.map(ConversationRow::decode).transpose()?)
        }

        /// Reads the current conversation of a session.
        async fn find_current(
            connection: &mut $connection,
            session: SessionId,
            user: &UserId,
        ) -> Result<Option<Conversation>, OperationError> {
            let statement = $crate::store::sql::CURRENT_CONVERSATION;
            let row: Option<ConversationRow> = sqlx::query_as(statement)
                .bind($key(session.as_uuid()))
                .bind(user.as_str())
                .fetch_optional(connection)
                .await?;
            Ok(row.map(ConversationRow::decode).transpose()?)
        }

        /// Reads a page of a user's conversations.
        pub(super) async fn read_page(
            connection: &mut $connection,
            query: &ConversationQuery,
        ) -> Result<ConversationPage, OperationError> {
            let mut page = $crate::store::rows::PageReader::new(query.after, query.limit);
            while let Some((after, limit)) = page.next_batch() {
                let rows = sqlx::query($crate::store::sql::LIST)
                    .bind(query.user_id.as_str())
                    .bind(query.dept_id.as_ref().map(DeptId::as_str))
                    .bind(after)
                    .bind(limit)
                    .fetch(&mut *connection);
                add_batch(&mut page, rows).await?;
            }
            Ok(page.finish())
        }

        /// Reads a page of a conversation's branches.
        pub(super) async fn read_branches(
            connection: &mut $connection,
            conversation: &ConversationRef,
            after: Option<i64>,
            limit: u32,
        ) -> Result<ConversationPage, OperationError> {
            let parent = find(connection, conversation).await?;
            let parent = parent.ok_or(StoreError::NotFound)?;
            let mut page = $crate::store::rows::PageReader::new(after, limit);
            while let Some((after, limit)) = page.next_batch() {
                let rows = sqlx::query($crate::store::sql::BRANCHES)
                    .bind($key(parent.id.as_uuid()))
                    .bind(parent.user_id.as_str())
                    .bind(after)
                    .bind(limit)
                    .fetch(&mut *connection);
                add_batch(&mut page, rows).await?;
            }
            Ok(page.finish())
        }

        /// Adds the rows of a batch to a page, one by one. It reads them to the end, so that the
        /// connection can be used again, but keeps none that is not part of the page.
        async fn add_batch(
            page: &mut $crate::store::rows::PageReader,
            mut rows: impl futures_util::Stream<Item = sqlx::Result<$row>> + Unpin,
        ) -> Result<(), OperationError> {
            use futures_util::TryStreamExt as _;
            while let Some(row) = rows.try_next().await? {
                if !page.is_full() {
                    page.add(decode_listed(&row)?);
                }
            }
            Ok(())
        }

        /// Decodes a row of a page, with its activity.
        fn decode_listed(row: &$row) -> Result<(Conversation, i64), OperationError> {
            use sqlx::{FromRow as _, Row as _};
            let activity = row.try_get("activity")?;
            Ok((ConversationRow::from_row(row)?.decode()?, activity))
        }
    };
}
pub(super) use conversation_reads;
