//! How messages are read, for both databases: the statements are the same and so
//! is what is made of their rows. A macro, because bounds that let one function
//! serve both drivers would be longer than the functions.

/// Defines `span`, `read_newest` and `read_side` for a kind of connection, its
/// rows, and the function that makes of an id what that database keeps. Beside
/// it stand the row types of that database, and its statements `NEWEST`, `AFTER`
/// and `BEFORE`, since each walks a lineage in its own way.
macro_rules! reads {
    ($connection:ty, $row:ty, $key:path) => {
        use sqlx::{FromRow as _, Row as _, query, query_as};

        use super::{ConversationRow, MessageRow};
        use $crate::{
            domain::{Conversation, ConversationId, ConversationRef, Message, UserId},
            store::{
                Bound, StoreError,
                failure::OperationError,
                rows::{ContextRow, add_contexts},
            },
        };

        /// The messages with these numbers, lowest first.
        pub(super) async fn span(
            connection: &mut $connection,
            conversation: ConversationId,
            first_seq: i64,
            last_seq: i64,
            contexts: bool,
        ) -> Result<Vec<Message>, OperationError> {
            let rows: Vec<MessageRow> = query_as(sql::SPAN)
                .bind($key(conversation))
                .bind(first_seq)
                .bind(last_seq)
                .fetch_all(&mut *connection)
                .await?;
            let mut messages = Vec::with_capacity(rows.len());
            for row in rows {
                messages.push(row.read(conversation)?);
            }
            if contexts {
                read_contexts(connection, &mut messages).await?;
            }
            Ok(messages)
        }

        async fn read_newest(
            connection: &mut $connection,
            conversation: &ConversationRef,
            limit: u32,
            contexts: bool,
        ) -> Result<(Conversation, Vec<Message>), OperationError> {
            let rows = query(NEWEST)
                .bind($key(conversation.id))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            let (found, mut messages) = split(&rows, conversation.id)?;
            keep_newest(&mut messages, limit);
            if contexts {
                read_contexts(connection, &mut messages).await?;
            }
            Ok((found, messages))
        }

        pub(super) async fn read_side(
            connection: &mut $connection,
            conversation: &ConversationRef,
            from: Bound,
            limit: u32,
            contexts: bool,
        ) -> Result<Vec<Message>, OperationError> {
            let (statement, seq) = match from {
                Bound::After(seq) => (AFTER, seq),
                Bound::Before(seq) => (BEFORE, seq),
            };
            let rows = query(statement)
                .bind($key(conversation.id))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .bind(seq)
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            let (_, mut messages) = split(&rows, conversation.id)?;
            match from {
                Bound::After(_) => messages.truncate(limit as usize),
                Bound::Before(_) => keep_newest(&mut messages, limit),
            }
            if contexts {
                read_contexts(connection, &mut messages).await?;
            }
            if matches!(from, Bound::Before(_)) {
                messages.reverse();
            }
            Ok(messages)
        }

        /// Own and shared messages were each read up to the limit.
        fn keep_newest(messages: &mut Vec<Message>, limit: u32) {
            let surplus = messages.len().saturating_sub(limit as usize);
            messages.drain(..surplus);
        }

        /// The conversation and its messages, lowest number first.
        fn split(
            rows: &[$row],
            id: ConversationId,
        ) -> Result<(Conversation, Vec<Message>), OperationError> {
            let mut conversation = None;
            let mut messages = Vec::with_capacity(rows.len());
            for row in rows {
                if row.try_get::<Option<i64>, _>("seq")?.is_none() {
                    conversation = Some(ConversationRow::from_row(row)?.read()?);
                } else {
                    messages.push(MessageRow::from_row(row)?.read(id)?);
                }
            }
            // UNION ALL promises no order.
            messages.sort_unstable_by_key(|message| message.seq);
            Ok((conversation.ok_or(StoreError::NotFound)?, messages))
        }

        /// Reads the contexts of messages that stand in order.
        async fn read_contexts(
            connection: &mut $connection,
            messages: &mut [Message],
        ) -> Result<(), OperationError> {
            let [first, ..] = messages else {
                return Ok(());
            };
            let (conversation, first) = (first.conversation_id, first.seq);
            let last = messages.last().map_or(first, |message| message.seq);
            let rows: Vec<ContextRow> = query_as(sql::CONTEXTS)
                .bind($key(conversation))
                .bind(first)
                .bind(last)
                .fetch_all(connection)
                .await?;
            Ok(add_contexts(messages, rows)?)
        }
    };
}

pub(super) use reads;
