use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    SqlitePool,
    append::{find_request, insert_request},
    connection::{self, Micros},
    conversations::get_in,
};
use crate::store::{
    compactions::compactions,
    replay::{self, RequestEntry},
};

compactions!(SqliteConnection, Uuid::hyphenated, Micros);

/// Compacts a conversation, or finds the earlier outcome of the same call.
pub(super) async fn compact(
    writer: &SqlitePool,
    compaction: &Compaction,
) -> Result<i64, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let compacted = replay_or_compact(&mut transaction, compaction).await;
    connection::end(transaction, compacted).await
}

async fn replay_or_compact(
    connection: &mut SqliteConnection,
    compaction: &Compaction,
) -> Result<i64, OperationError> {
    let found = get_in(connection, &compaction.conversation).await?;
    if let Some(request) = &compaction.request
        && let Some(known) = find_request(connection, found.id, request).await?
    {
        return Ok(replay::replayed_compaction(&known, request)?);
    }
    let last_seq = found.last_seq;
    replay::check_last_seq(compaction.expected_last_seq, last_seq)?;
    compact_history(connection, compaction, last_seq).await?;
    if let Some(request) = &compaction.request {
        let entry = RequestEntry {
            request,
            first_seq: compaction.upto_seq,
            last_seq,
            removed: None,
            at: compaction.at,
        };
        insert_request(connection, found.id, &entry).await?;
    }
    Ok(last_seq)
}
