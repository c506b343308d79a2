use sqlx::{FromRow, PgConnection, PgPool, Row, postgres::PgRow, query, query_as};

use super::{ConversationRow, MessageRow, connection::Lease, sql};
use crate::{
    domain::{Conversation, ConversationId, ConversationRef, Message, UserId},
    store::{
        Bound, StoreError,
        failure::Trouble,
        rows::{ContextRow, add_contexts},
    },
};

pub(super) async fn newest(
    pool: &PgPool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), Trouble> {
    let mut lease = Lease::take(pool).await?;
    let read = read_newest(&mut lease, conversation, limit, contexts).await;
    lease.release(read)
}

pub(super) async fn messages(
    pool: &PgPool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, Trouble> {
    let mut lease = Lease::take(pool).await?;
    let read = read_side(&mut lease, conversation, from, limit, contexts).await;
    lease.release(read)
}

/// The messages with these numbers, lowest first.
pub(super) async fn span(
    connection: &mut PgConnection,
    conversation: ConversationId,
    first_seq: i64,
    last_seq: i64,
    contexts: bool,
) -> Result<Vec<Message>, Trouble> {
    let rows: Vec<MessageRow> = query_as(sql::SPAN)
        .bind(conversation.as_uuid())
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
    connection: &mut PgConnection,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), Trouble> {
    let rows = query(sql::NEWEST)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let (found, mut messages) = split(&rows, conversation.id)?;
    if contexts {
        read_contexts(connection, &mut messages).await?;
    }
    Ok((found, messages))
}

async fn read_side(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, Trouble> {
    let (statement, seq) = match from {
        Bound::After(seq) => (sql::AFTER, seq),
        Bound::Before(seq) => (sql::BEFORE, seq),
    };
    let rows = query(statement)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(seq)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await?;
    let (_, mut messages) = split(&rows, conversation.id)?;
    if contexts {
        read_contexts(connection, &mut messages).await?;
    }
    if matches!(from, Bound::Before(_)) {
        messages.reverse();
    }
    Ok(messages)
}

/// The conversation and its messages, lowest number first.
fn split(rows: &[PgRow], id: ConversationId) -> Result<(Conversation, Vec<Message>), Trouble> {
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
    connection: &mut PgConnection,
    messages: &mut [Message],
) -> Result<(), Trouble> {
    let [first, ..] = messages else {
        return Ok(());
    };
    let (conversation, first) = (first.conversation_id, first.seq);
    let last = messages.last().map_or(first, |message| message.seq);
    let rows: Vec<ContextRow> = query_as(sql::CONTEXTS)
        .bind(conversation.as_uuid())
        .bind(first)
        .bind(last)
        .fetch_all(connection)
        .await?;
    Ok(add_contexts(messages, rows)?)
}
