//! Redactions. The rows of all conversations that contain the messages are locked, so that none of
//! them is branched, truncated or compacted in the meantime: each of these operations locks the row
//! of its conversation, too.

use uuid::Uuid;

use super::{
    PostgresPool,
    checkpoints::reject_checkpoints,
    connection::PooledConnection,
    effects::apply_effects,
    invalidations::{record_after, record_changed},
    store_connection::StoreConnection,
    transaction::{BEGIN, before_commit, end_with},
};
use crate::store::{Redaction, redactions::redactions};

redactions!(StoreConnection, std::convert::identity, Uuid);

/// Locks conversations in the order of their ids, so that concurrent redactions do not wait for each
/// other in a circle, and reads their titles. Parameter: $1 conversations.
const LOCK: &str = "SELECT c.id, c.title, c.title_seq FROM conversations c \
    WHERE c.id = ANY($1) ORDER BY c.id FOR UPDATE";

/// Finds the conversations that contain any of the messages.
pub(super) async fn containing(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    seqs: &[i64],
) -> Result<Vec<ConversationId>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let located = locate(&mut connection, conversation, seqs).await;
    connection
        .release(located.map(|located| located.conversation_ids()))
        .await
}

/// Redacts messages of a conversation.
pub(super) async fn redact(
    pool: &PostgresPool,
    redaction: &Redaction,
) -> Result<Redacted, OperationError> {
    let after = record_after(redaction.invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let wait = connection.wait();
    let redacted = lock_and_redact(&mut connection, &redaction.conversation, &redaction.seqs);
    let redacted = before_commit(wait, redacted).await;
    let record = match &redacted {
        Ok(redacted) => record_changed(&redaction.announced, &redacted.conversations, after),
        Err(_) => String::new(),
    };
    end_with(connection, redacted, &record).await
}

async fn lock_and_redact(
    connection: &mut StoreConnection,
    conversation: &ConversationRef,
    seqs: &[i64],
) -> Result<Redacted, OperationError> {
    connection.begin(&BEGIN).await?;
    let mut titles = Titles::new();
    let located = loop {
        let located = locate(connection, conversation, seqs).await?;
        let unlocked: Vec<Uuid> = located
            .conversations
            .keys()
            .filter(|id| !titles.contains_key(*id))
            .copied()
            .collect();
        if unlocked.is_empty() {
            break located;
        }
        // A conversation can be branched until its row is locked: what was located before is not
        // used.
        lock(connection, &unlocked, &mut titles).await?;
    };
    let affected: Vec<Uuid> = located.conversations.keys().copied().collect();
    reject_checkpoints(connection, &affected).await?;
    apply_effects(connection, &located.effects(&titles)).await?;
    erase(connection, &located).await?;
    Ok(located.into_redacted())
}

async fn lock(
    connection: &mut StoreConnection,
    conversations: &[Uuid],
    titles: &mut Titles,
) -> Result<(), OperationError> {
    let locked: Vec<(Uuid, Option<String>, Option<i64>)> = query_as(LOCK)
        .bind(conversations)
        .fetch_all(connection)
        .await?;
    titles.extend(
        locked
            .into_iter()
            .map(|(id, title, seq)| (id, (title, seq))),
    );
    Ok(())
}
