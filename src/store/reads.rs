//! Reads of messages, for both databases: the statements and the handling of their rows are the
//! same. They are a macro, because the trait bounds of a function that is generic over both
//! drivers would be longer than the functions.

/// Defines `read_range`, `read_newest` and `read_page` for a kind of connection, its
/// rows, and the function that converts a UUID to the type of a key column. The module
/// that uses it defines the row types of that database, and the statements `NEWEST`,
/// `AFTER`, `BEFORE` and `CONTEXTS`, since each database reads a lineage in a different way, and the
/// constant `READS_ALL_ROWS`.
macro_rules! reads {
    ($connection:ty, $row:ty, $key:path) => {
        use sqlx::{FromRow as _, Row as _, query, query_as};

        use super::{ConversationRow, MessageRow};
        use $crate::{
            domain::{Conversation, ConversationId, ConversationRef, Message, UserId},
            store::{
                Bound, Newest, StoreError,
                operation_error::OperationError,
                rows::{
                    Contexts,
                    read_limits::{ReadLimits, RowLimit},
                },
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
                read_contexts(connection, &mut messages, &mut RowLimit::of_request()).await?;
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
            let mut limits = ReadLimits::new(limit, Newest::MAX_PINNED);
            loop {
                let rows = query(NEWEST)
                    .bind($key(conversation.id.as_uuid()))
                    .bind(conversation.user_id.as_ref().map(UserId::as_str))
                    .bind(i64::from(limits.messages()))
                    .bind(i64::from(limits.pinned()))
                    .fetch(&mut *connection);
                let history = collect_history(rows, conversation.id, &mut limits).await?;
                limits.shrink();
                let Some(mut history) = history else {
                    continue;
                };
                // Pinned messages have negative numbers, and the summary has 0.
                let messages = &mut history.messages;
                let mut newest = messages.split_off(messages.partition_point(|m| m.seq <= 0));
                let summary = messages.pop_if(|message| message.is_summary());
                let mut pinned = std::mem::take(messages);
                for message in &mut pinned {
                    message.seq = -message.seq;
                }
                pinned.reverse();
                keep_newest(&mut pinned, limits.pinned());
                keep_newest(&mut newest, limits.messages());
                if contexts {
                    read_contexts(connection, &mut newest, limits.of_messages()).await?;
                    // Pinned messages can be far apart, and contexts are read for whole ranges.
                    for message in &mut pinned {
                        let message = std::slice::from_mut(message);
                        read_contexts(connection, message, limits.of_pinned()).await?;
                    }
                    if limits.shrink() {
                        continue;
                    }
                }
                return Ok(Newest {
                    conversation: history.conversation,
                    pinned,
                    summary,
                    messages: newest,
                    is_cut: limits.messages() < limit,
                    is_settled: history.is_settled,
                });
            }
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
            let mut limits = ReadLimits::new(limit, 0);
            loop {
                let rows = query(statement)
                    .bind($key(conversation.id.as_uuid()))
                    .bind(conversation.user_id.as_ref().map(UserId::as_str))
                    .bind(seq)
                    .bind(i64::from(limits.messages()))
                    .fetch(&mut *connection);
                let history = collect_history(rows, conversation.id, &mut limits).await?;
                limits.shrink();
                let Some(HistoryRows { mut messages, .. }) = history else {
                    continue;
                };
                match from {
                    Bound::After(_) => messages.truncate(limits.messages() as usize),
                    Bound::Before(_) => keep_newest(&mut messages, limits.messages()),
                }
                if contexts {
                    read_contexts(connection, &mut messages, limits.of_messages()).await?;
                    if limits.shrink() {
                        continue;
                    }
                }
                if matches!(from, Bound::Before(_)) {
                    messages.reverse();
                }
                return Ok(messages);
            }
        }

        /// Removes the oldest messages beyond the limit: own and shared messages have
        /// each been read up to the limit.
        fn keep_newest(messages: &mut Vec<Message>, limit: u32) {
            let surplus = messages.len().saturating_sub(limit as usize);
            messages.drain(..surplus);
        }

        /// Rows of a history.
        struct HistoryRows {
            conversation: Conversation,
            /// Messages in ascending order.
            messages: Vec<Message>,
            /// Whether no write to the conversation was in progress.
            is_settled: bool,
        }

        /// Decodes the rows of a history as they arrive. `None` if they exceed the limits.
        async fn collect_history(
            mut rows: impl futures_util::Stream<Item = sqlx::Result<$row>> + Unpin,
            id: ConversationId,
            limits: &mut ReadLimits,
        ) -> Result<Option<HistoryRows>, OperationError> {
            use futures_util::TryStreamExt as _;
            let mut conversation = None;
            let mut is_settled = false;
            let mut messages = Vec::new();
            while let Some(row) = rows.try_next().await? {
                if limits.is_exceeded() {
                    messages = Vec::new();
                    if READS_ALL_ROWS {
                        continue;
                    }
                    break;
                }
                if row.try_get::<Option<i64>, _>("seq")?.is_none() {
                    is_settled = row.try_get::<Option<bool>, _>("is_settled")? == Some(true);
                    conversation = Some(ConversationRow::from_row(&row)?.decode()?);
                } else {
                    let message = MessageRow::from_row(&row)?.decode(id)?;
                    limits.count(&message);
                    messages.push(message);
                }
            }
            if limits.is_exceeded() {
                return Ok(None);
            }
            // UNION ALL guarantees no order.
            messages.sort_unstable_by_key(|message| message.seq);
            Ok(Some(HistoryRows {
                conversation: conversation.ok_or(StoreError::NotFound)?,
                messages,
                is_settled,
            }))
        }

        /// Reads the contexts of messages that are in ascending order. They are incomplete if they
        /// exceed the limits of the read.
        async fn read_contexts(
            connection: &mut $connection,
            messages: &mut [Message],
            limit: &mut RowLimit,
        ) -> Result<(), OperationError> {
            use futures_util::TryStreamExt as _;
            let [first, ..] = messages else {
                return Ok(());
            };
            let (conversation, first) = (first.conversation_id, first.seq);
            let last = messages.last().map_or(first, |message| message.seq);
            let mut rows = query_as(CONTEXTS)
                .bind($key(conversation.as_uuid()))
                .bind(first)
                .bind(last)
                .fetch(connection);
            let mut contexts = Contexts::default();
            while let Some(row) = rows.try_next().await? {
                if !limit.is_exceeded() {
                    limit.count_context(contexts.add(row)?);
                }
            }
            contexts.attach(messages);
            Ok(())
        }
    };
}

pub(super) use reads;
