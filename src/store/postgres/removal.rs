//! Removals: transactions that may take a while.
//!
//! What branches share stays. Whether anybody shares a message is looked at
//! under a lock on whatever the messages are kept under, since of two that give
//! up the same message one has to take it along.

use sqlx::{PgConnection, raw_sql};
use uuid::Uuid;

use super::{
    Pool,
    append::find_request,
    connection::Lease,
    transaction::{BEGIN, before_commit, end},
};
use crate::{
    domain::{ConversationRef, UserId},
    store::{StoreError, Truncated, Truncation, lineage::lineage, replay},
};

lineage!(PgConnection, Uuid);

const LOCK: &str = concat!(
    "SELECT c.last_seq, c.own_after FROM conversations c WHERE ",
    sql::named_conversation!(),
    " FOR UPDATE"
);

/// $1 conversation: the lock on its messages and on those of its lineage.
const LOCK_MESSAGES: &str = "SELECT pg_advisory_xact_lock(hashtextextended(s.id::text, 0)) \
    FROM (SELECT $1 AS id UNION SELECT l.source_id FROM lineage l WHERE l.conversation_id = $1 \
          ORDER BY 1) AS s";

const DELETE: &str = "DELETE FROM conversations c WHERE c.id = $1";

const TOUCH: &str = "UPDATE conversations SET updated_at = greatest(updated_at, $2), \
    activity = nextval('activity_order') WHERE id = $1";

const NOTE: &str = "INSERT INTO requests \
    (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

pub(super) async fn delete(
    pool: &Pool,
    conversation: &ConversationRef,
) -> Result<(), OperationError> {
    let mut lease = Lease::take(pool).await?;
    let removed = before_commit(remove(&mut lease, conversation)).await;
    end(lease, removed).await
}

pub(super) async fn truncate(
    pool: &Pool,
    truncation: &Truncation,
) -> Result<Truncated, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let removed = before_commit(cut(&mut lease, truncation)).await;
    end(lease, removed).await
}

async fn remove(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<(), OperationError> {
    let id = conversation.id.as_uuid();
    begin_on(connection, conversation).await?;
    lock_messages(connection, id).await?;
    let shown = lineage(connection, id).await?;
    query(DELETE).bind(id).execute(&mut *connection).await?;
    release(connection, (id, 0, i64::MAX)).await?;
    for range in shown.into_iter().filter(|(source, ..)| *source != id) {
        release(connection, range).await?;
    }
    Ok(())
}

async fn cut(
    connection: &mut PgConnection,
    truncation: &Truncation,
) -> Result<Truncated, OperationError> {
    let id = truncation.conversation.id;
    let (last_seq, own_after) = begin_on(connection, &truncation.conversation).await?;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        return Ok(replay::of_truncation(&known, request)?);
    }
    replay::ends_at(truncation.expected_last_seq, last_seq)?;
    let end = End {
        conversation: id.as_uuid(),
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    lock_messages(connection, end.conversation).await?;
    let truncated = Truncated {
        removed: end.cut(connection).await?,
        last_seq,
    };
    note(connection, truncation, truncated).await?;
    Ok(truncated)
}

/// Begins a transaction and locks the conversation, which gives its last number
/// and the one after which its own messages begin. The lock comes in a statement
/// of its own: what follows then sees all that was done before it was got.
async fn begin_on(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<(i64, i64), OperationError> {
    raw_sql(BEGIN).execute(&mut *connection).await?;
    let found: Option<(i64, i64)> = query_as(LOCK)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(connection)
        .await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

/// Locks the messages that a conversation shows.
async fn lock_messages(
    connection: &mut PgConnection,
    conversation: Uuid,
) -> Result<(), OperationError> {
    query(LOCK_MESSAGES)
        .bind(conversation)
        .execute(connection)
        .await?;
    Ok(())
}

async fn note(
    connection: &mut PgConnection,
    truncation: &Truncation,
    truncated: Truncated,
) -> Result<(), OperationError> {
    let id = truncation.conversation.id.as_uuid();
    query(TOUCH)
        .bind(id)
        .bind(truncation.at)
        .execute(&mut *connection)
        .await?;
    if let Some(request) = &truncation.request {
        query(NOTE)
            .bind(id)
            .bind(request.id.as_str())
            .bind(request.digest.as_bytes())
            .bind(truncation.after_seq.saturating_add(1))
            .bind(truncated.last_seq)
            .bind(truncated.removed)
            .bind(truncation.at)
            .execute(connection)
            .await?;
    }
    Ok(())
}
