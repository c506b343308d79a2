//! Removals: transactions that can take a long time.
//!
//! Messages that branches share are kept. Whether a message is shared is checked under a lock that
//! all conversations that can contain it have in common: if the same message is removed from two
//! conversations concurrently, one of the transactions must delete it.

use sqlx::{query, query_as};

use super::{
    PostgresPool,
    append::{find_request, insert_request},
    checkpoints::reject_checkpoints,
    connection::PooledConnection,
    invalidations::{record_after, record_statement},
    lineage::{TruncationPoint, delete_history, lock_messages, truncate_history},
    sql,
    store_connection::StoreConnection,
    transaction::{BEGIN, before_commit, end_with},
};
use crate::{
    domain::{ConversationRef, UserId},
    store::{
        Invalidation, StoreError, Truncated, Truncation,
        operation_error::OperationError,
        replay::{self, RequestEntry},
    },
};

const LOCK: &str = concat!(
    "SELECT c.last_seq, c.own_after FROM conversations c WHERE ",
    sql::conversation_condition!(),
    " FOR UPDATE"
);

const DELETE: &str = "DELETE FROM conversations c WHERE c.id = $1";

const RECORD_ACTIVITY: &str = "UPDATE conversations SET updated_at = greatest(updated_at, $2), \
    activity = nextval('activity_order') WHERE id = $1";

/// Deletes a conversation.
pub(super) async fn delete(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    invalidation: Invalidation,
) -> Result<(), OperationError> {
    let after = record_after(invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let deleted = before_commit(
        connection.wait(),
        find_and_delete(&mut connection, conversation),
    )
    .await;
    end_with(
        connection,
        deleted,
        &record_statement([conversation.id], after),
    )
    .await
}

async fn find_and_delete(
    connection: &mut StoreConnection,
    conversation: &ConversationRef,
) -> Result<(), OperationError> {
    let id = conversation.id.as_uuid();
    begin_and_lock(connection, conversation).await?;
    lock_messages(connection, id).await?;
    delete_history(connection, id, DELETE).await?;
    Ok(())
}

/// Removes the messages after a number, or finds the earlier outcome of the same call.
pub(super) async fn truncate(
    pool: &PostgresPool,
    truncation: &Truncation,
) -> Result<Truncated, OperationError> {
    let after = record_after(truncation.invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let truncated = before_commit(
        connection.wait(),
        replay_or_truncate(&mut connection, truncation),
    )
    .await;
    let record = record_statement([truncation.conversation.id], after);
    end_with(connection, truncated, &record).await
}

async fn replay_or_truncate(
    connection: &mut StoreConnection,
    truncation: &Truncation,
) -> Result<Truncated, OperationError> {
    let id = truncation.conversation.id;
    let (last_seq, own_after) = begin_and_lock(connection, &truncation.conversation).await?;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        return Ok(replay::replayed_truncation(&known, request)?);
    }
    replay::check_last_seq(truncation.expected_last_seq, last_seq)?;
    let point = TruncationPoint {
        conversation: id.as_uuid(),
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    reject_checkpoints(connection, &[point.conversation]).await?;
    lock_messages(connection, point.conversation).await?;
    let (removed, _) = truncate_history(connection, &point).await?;
    let truncated = Truncated { removed, last_seq };
    record(connection, truncation, truncated).await?;
    Ok(truncated)
}

/// Begins a transaction and locks the conversation. Returns its last number and the number
/// after which its own messages begin. The lock is a separate statement, so that the
/// statements after it see everything that was committed before it was obtained.
pub(super) async fn begin_and_lock(
    connection: &mut StoreConnection,
    conversation: &ConversationRef,
) -> Result<(i64, i64), OperationError> {
    connection.begin(&BEGIN).await?;
    let found: Option<(i64, i64)> = query_as(LOCK)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(connection)
        .await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

/// Records a truncation as activity of the conversation, and in the requests ledger.
async fn record(
    connection: &mut StoreConnection,
    truncation: &Truncation,
    truncated: Truncated,
) -> Result<(), OperationError> {
    let id = truncation.conversation.id;
    query(RECORD_ACTIVITY)
        .bind(id.as_uuid())
        .bind(truncation.at)
        .execute(&mut *connection)
        .await?;
    if let Some(request) = &truncation.request {
        let entry = RequestEntry {
            request,
            first_seq: truncation.after_seq.saturating_add(1),
            last_seq: truncated.last_seq,
            removed: Some(truncated.removed),
            at: truncation.at,
        };
        insert_request(connection, id, &entry).await?;
    }
    Ok(())
}
