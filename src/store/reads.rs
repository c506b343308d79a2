//! Reads of messages, for both databases: the statements and the handling of their rows are the
//! same. They are a macro, because the trait bounds of a function that is generic over both
//! drivers would be longer than the functions.

/// Defines `read_range`, `read_newest` and `read_page` for a kind of connection, its
/// rows, and the function that converts a UUID to the type of a key column. The module
/// that uses it defines the row types of that database, and the statements `NEWEST`,
/// `AFTER` and `BEFORE`, since each database reads a lineage in a different way.
macro_rules! reads {
    ($connection:ty, $row:ty, $key:path) => {
        use sqlx::{FromRow as _, Row as _, query, query_as};

        use super::{ConversationRow, MessageRow};
        use $crate::{
            domain::{Conversation, ConversationId, ConversationRef, Message, UserId},
            store::{
                Bound, Newest, StoreError,
                operation_error::OperationError,
                rows::{ContextRow, add_contexts},
            },
        };

        /// Reads the messages with the numbers from `first_seq` to `last_seq` that were
        /// saved to this conversation, in ascending order.
        pub(super) async fn read_range(
            connection: &mut $connection,
            conversation: ConversationId,
            first_seq: i64,
            last_seq: i64,
            contexts: bool,
        ) -> Result<Vec<Message>, OperationError> {
            let rows: Vec<MessageRow> = query_as(sql::OWN_RANGE)
                .bind($key(conversation.as_uuid()))
                .bind(first_seq)
                .bind(last_seq)
                .fetch_all(&mut *connection)
                .await?;
            let mut messages = Vec::with_capacity(rows.len());
            for row in rows {
                messages.push(row.decode(conversation)?);
            }
            if contexts {
                read_contexts(connection, &mut messages).await?;
            }
            Ok(messages)
        }

        /// Reads a conversation and its newest messages, in ascending order.
        async fn read_newest(
            connection: &mut $connection,
            conversation: &ConversationRef,
            limit: u32,
            contexts: bool,
        ) -> Result<Newest, OperationError> {
            let rows = query(NEWEST)
                .bind($key(conversation.id.as_uuid()))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            let is_settled = is_settled(&rows)?;
            let (conversation, mut messages) = decode_history(&rows, conversation.id)?;
            // Pinned messages have negative numbers, and the summary has 0.
            let mut newest = messages.split_off(messages.partition_point(|m| m.seq <= 0));
            let summary = messages.pop_if(|message| message.is_summary());
            for message in &mut messages {
                message.seq = -message.seq;
            }
            messages.reverse();
            keep_newest(&mut messages, Newest::MAX_PINNED);
            keep_newest(&mut newest, limit);
            if contexts {
                read_contexts(connection, &mut newest).await?;
                // Pinned messages can be far apart, and contexts are read for whole ranges.
                for message in &mut messages {
                    read_contexts(connection, std::slice::from_mut(message)).await?;
                }
            }
            Ok(Newest {
                conversation,
                pinned: messages,
                summary,
                messages: newest,
                is_settled,
            })
        }

        /// Whether no write to the conversation of a history was in progress.
        fn is_settled(rows: &[$row]) -> Result<bool, OperationError> {
            for row in rows {
                if let Some(is_settled) = row.try_get("is_settled")? {
                    return Ok(is_settled);
                }
            }
            Ok(false)
        }

        /// Reads the data of a message's blobs, with the indices of their parts.
        pub(super) async fn read_blobs(
            connection: &mut $connection,
            conversation: ConversationId,
            seq: i64,
        ) -> Result<Vec<(u32, bytes::Bytes)>, OperationError> {
            let rows: Vec<(i32, Vec<u8>)> = query_as(sql::BLOBS)
                .bind($key(conversation.as_uuid()))
                .bind(seq)
                .fetch_all(connection)
                .await?;
            let blobs = rows
                .into_iter()
                .map(|(position, data)| (u32::try_from(position).unwrap_or_default(), data.into()));
            Ok(blobs.collect())
        }

        /// Reads a page of messages, in the order of the bound.
        pub(super) async fn read_page(
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
                .bind($key(conversation.id.as_uuid()))
                .bind(conversation.user_id.as_ref().map(UserId::as_str))
                .bind(seq)
                .bind(i64::from(limit))
                .fetch_all(&mut *connection)
                .await?;
            let (_, mut messages) = decode_history(&rows, conversation.id)?;
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

        /// Removes the oldest messages beyond the limit: own and shared messages have
        /// each been read up to the limit.
        fn keep_newest(messages: &mut Vec<Message>, limit: u32) {
            let surplus = messages.len().saturating_sub(limit as usize);
            messages.drain(..surplus);
        }

        /// Decodes the rows of a history: the conversation and its messages, in
        /// ascending order.
        fn decode_history(
            rows: &[$row],
            id: ConversationId,
        ) -> Result<(Conversation, Vec<Message>), OperationError> {
            let mut conversation = None;
            let mut messages = Vec::with_capacity(rows.len());
            for row in rows {
                if row.try_get::<Option<i64>, _>("seq")?.is_none() {
                    conversation = Some(ConversationRow::from_row(row)?.decode()?);
                } else {
                    messages.push(MessageRow::from_row(row)?.decode(id)?);
                }
            }
            // UNION ALL guarantees no order.
            messages.sort_unstable_by_key(|message| message.seq);
            Ok((conversation.ok_or(StoreError::NotFound)?, messages))
        }

        /// Reads the contexts of messages that are in ascending order.
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
                .bind($key(conversation.as_uuid()))
                .bind(first)
                .bind(last)
                .fetch_all(connection)
                .await?;
            Ok(add_contexts(messages, rows)?)
        }
    };
}

pub(super) use reads;
