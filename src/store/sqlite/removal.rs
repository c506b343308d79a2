use sqlx::{SqliteConnection, query, query_scalar};

use super::{
    SqlitePool,
    append::{find_request, insert_request},
    branches::OWN_AFTER,
    checkpoints::reject_checkpoints,
    connection::{self, Micros},
    conversations::get_in,
    lineage::{LineageRange, TruncationPoint, delete_history, truncate_history},
    pending_removals::remove_requests,
};
use crate::{
    domain::ConversationRef,
    store::{
        Truncated, Truncation,
        operation_error::OperationError,
        replay::{self, RequestEntry},
    },
};

const DELETE: &str = "DELETE FROM conversations WHERE id = $1";

const RECORD_ACTIVITY: &str =
    "UPDATE conversations SET updated_at = max(updated_at, $2), activity = $3 WHERE id = $1";

/// Deletes a conversation. Returns the records of what remains to be deleted.
pub(super) async fn delete(
    writer: &SqlitePool,
    conversation: &ConversationRef,
) -> Result<Vec<LineageRange>, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let deleted = find_and_delete(&mut transaction, conversation).await;
    connection::end(transaction, deleted).await
}

async fn find_and_delete(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<Vec<LineageRange>, OperationError> {
    let found = get_in(connection, conversation).await?;
    let id = found.id.as_uuid().hyphenated();
    let mut left = delete_history(connection, id, DELETE).await?;
    left.extend(remove_requests(connection, id).await?);
    Ok(left)
}

/// Removes the messages after a number, or finds the earlier outcome of the same call. Also returns
/// the ranges of messages that remain to be deleted.
pub(super) async fn truncate(
    writer: &SqlitePool,
    truncation: &Truncation,
) -> Result<(Truncated, Vec<LineageRange>), OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let truncated = replay_or_truncate(&mut transaction, truncation).await;
    connection::end(transaction, truncated).await
}

async fn replay_or_truncate(
    connection: &mut SqliteConnection,
    truncation: &Truncation,
) -> Result<(Truncated, Vec<LineageRange>), OperationError> {
    let found = get_in(connection, &truncation.conversation).await?;
    let last_seq = found.last_seq;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(connection, found.id, request).await?
    {
        let replayed = replay::replayed_truncation(&known, request)?;
        return Ok((replayed, Vec::new()));
    }
    replay::check_last_seq(truncation.expected_last_seq, last_seq)?;
    let id = found.id.as_uuid().hyphenated();
    let own_after: i64 = query_scalar(OWN_AFTER)
        .bind(id)
        .fetch_one(&mut *connection)
        .await?;
    let point = TruncationPoint {
        conversation: id,
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    reject_checkpoints(connection, [found.id.as_uuid()].into_iter()).await?;
    let (removed, left) = truncate_history(connection, &point).await?;
    let at = Micros::from(truncation.at);
    let activity = connection::next_activity(connection).await?;
    query(RECORD_ACTIVITY)
        .bind(id)
        .bind(at)
        .bind(activity)
        .execute(&mut *connection)
        .await?;
    if let Some(request) = &truncation.request {
        let entry = RequestEntry {
            request,
            first_seq: truncation.after_seq.saturating_add(1),
            last_seq,
            removed: Some(removed),
            at: truncation.at,
        };
        insert_request(connection, found.id, &entry).await?;
    }
    Ok((Truncated { removed, last_seq }, left))
}
