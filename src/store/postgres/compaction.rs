use chrono::{DateTime, Utc};

use super::{
    PostgresPool,
    append::{find_request, insert_request},
    connection::PooledConnection,
    invalidations::{record_after, record_statement},
    removal::begin_and_lock,
    store_connection::StoreConnection,
    transaction::{before_commit, end_with},
};
use crate::store::{
    compactions::compactions,
    replay::{self, RequestEntry},
};

compactions!(StoreConnection, std::convert::identity, DateTime<Utc>);

/// Compacts a conversation, or finds the earlier outcome of the same call.
pub(super) async fn compact(
    pool: &PostgresPool,
    compaction: &Compaction,
) -> Result<i64, OperationError> {
    let after = record_after(compaction.invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let compacted = before_commit(
        connection.wait(),
        replay_or_compact(&mut connection, compaction),
    )
    .await;
    let record = record_statement([compaction.conversation.id], after);
    end_with(connection, compacted, &record).await
}

async fn replay_or_compact(
    connection: &mut StoreConnection,
    compaction: &Compaction,
) -> Result<i64, OperationError> {
    let id = compaction.conversation.id;
    let (last_seq, _) = begin_and_lock(connection, &compaction.conversation).await?;
    if let Some(request) = &compaction.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        return Ok(replay::replayed_compaction(&known, request)?);
    }
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
        insert_request(connection, id, &entry).await?;
    }
    Ok(last_seq)
}
