use uuid::Uuid;

use super::store_connection::StoreConnection;
use crate::store::lineage::lineage;

lineage!(StoreConnection, Uuid, remove);

/// Locks the messages that the conversation $1 shares with others: one lock, however many
/// conversations contain them. Conversations that contain the same message also contain all
/// messages before it, so that the first range of their lineages has the same source.
const LOCK_MESSAGES: &str = "SELECT pg_advisory_xact_lock(hashtextextended(coalesce( \
        (SELECT l.source_id FROM lineage l WHERE l.conversation_id = $1 \
         ORDER BY l.upto_seq LIMIT 1), $1)::text, 0))";

/// Locks the messages that a conversation shares with others. Its row is locked.
pub(super) async fn lock_messages(
    connection: &mut StoreConnection,
    conversation: Uuid,
) -> Result<(), OperationError> {
    query(LOCK_MESSAGES)
        .bind(conversation)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the messages of ranges.
async fn remove(
    connection: &mut StoreConnection,
    ranges: Vec<LineageRange>,
) -> Result<Vec<LineageRange>, OperationError> {
    for (source, after_seq, upto_seq) in ranges {
        query(sql::DELETE_RANGE)
            .bind(source)
            .bind(after_seq)
            .bind(upto_seq)
            .execute(&mut *connection)
            .await?;
    }
    Ok(Vec::new())
}
