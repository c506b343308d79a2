//! Changes of owners. The rows of all conversations of a family are locked, so that none of them is
//! branched or saved to in the meantime: each of these operations locks the row of its conversation,
//! too.

use std::collections::BTreeMap;

use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::{
    PostgresPool,
    connection::PooledConnection,
    conversations,
    invalidations::{record_after, record_changed},
    store_connection::StoreConnection,
    transaction::{BEGIN, before_commit, end_with},
};
use crate::{
    domain::{ConversationId, ConversationRef, DeptId},
    store::{
        OwnerChange,
        operation_error::OperationError,
        ownership::{MAX_FAMILY_CONVERSATIONS, MAX_FAMILY_MESSAGES, check_size, previous_owner},
        rows::limit_with_next,
    },
};

/// Finds the conversations that are connected with one, also by deleted ones. Parameters: $1
/// conversation, $2 owner, $3 limit.
const FAMILY: &str = "WITH RECURSIVE family AS (
        SELECT $1::uuid AS id
        UNION
        SELECT n.id FROM family f CROSS JOIN LATERAL (
            (SELECT l.source_id AS id FROM lineage l WHERE l.conversation_id = f.id
             ORDER BY l.upto_seq LIMIT 1)
            UNION ALL SELECT l.conversation_id FROM lineage l WHERE l.source_id = f.id
            UNION ALL SELECT c.parent_id FROM conversations c
                WHERE c.id = f.id AND c.parent_id IS NOT NULL
            UNION ALL SELECT c.id FROM conversations c WHERE c.parent_id = f.id
        ) AS n
        WHERE NOT EXISTS (SELECT 1 FROM conversations o WHERE o.id = n.id AND o.user_id <> $2)
    )
    SELECT f.id FROM family f LIMIT $3";

/// Locks conversations in the order of their ids, so that concurrent changes do not wait for each
/// other in a circle. Parameter: $1 conversations.
const LOCK: &str = "SELECT c.id, c.user_id FROM conversations c \
    WHERE c.id = ANY($1) ORDER BY c.id FOR UPDATE";

/// Finds the ids that messages of conversations are stored under. Parameter: $1 conversations.
const SOURCES: &str = "SELECT s.id FROM unnest($1) AS s (id) \
    UNION SELECT l.source_id FROM lineage l WHERE l.conversation_id = ANY($1)";

/// Counts documents up to a limit. Parameters: $1 ids that their messages are stored under, $2 limit.
const COUNT_DOCUMENTS: &str = "SELECT count(*) FROM (
        SELECT 1 FROM unnest($1) AS s (id)
            JOIN message_documents d ON d.conversation_id = s.id LIMIT $2
    ) AS n";

/// Changes conversations. Parameters: $1 their ids, $2 owner, $3 department or NULL.
const CHANGE_CONVERSATIONS: &str = "UPDATE conversations SET user_id = $2, \
        dept_id = coalesce($3, dept_id), \
        last_session_id = CASE WHEN user_id = $2 THEN last_session_id END, \
        session_attached = CASE WHEN user_id = $2 THEN session_attached END \
    WHERE id = ANY($1) AND (user_id <> $2 OR dept_id IS DISTINCT FROM coalesce($3, dept_id))";

/// Changes documents. Parameters: $1 ids that their messages are stored under, $2 owner, $3
/// department or NULL.
const CHANGE_DOCUMENTS: &str = "UPDATE message_documents d SET user_id = $2, \
        dept_id = coalesce($3, d.dept_id) \
    FROM unnest($1) AS s (id) WHERE d.conversation_id = s.id \
        AND (d.user_id <> $2 OR d.dept_id IS DISTINCT FROM coalesce($3, d.dept_id))";

/// Finds the family of a conversation.
pub(super) async fn family(
    pool: &PostgresPool,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let found = find_family(&mut connection, change).await;
    connection.release(found.map(conversation_ids)).await
}

/// Changes the owner of the family of a conversation.
pub(super) async fn change_owner(
    pool: &PostgresPool,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    let after = record_after(change.invalidation, &pool.server);
    let mut connection = PooledConnection::acquire(pool).await?;
    let wait = connection.wait();
    let changed = before_commit(wait, lock_and_change(&mut connection, change)).await;
    let record = match &changed {
        Ok(changed) => record_changed(&change.announced, changed, after),
        Err(_) => String::new(),
    };
    end_with(connection, changed, &record).await
}

async fn lock_and_change(
    connection: &mut StoreConnection,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    connection.begin(&BEGIN).await?;
    let mut locked: BTreeMap<Uuid, String> = BTreeMap::new();
    let family = loop {
        let family = find_family(connection, change).await?;
        let unlocked: Vec<Uuid> = family
            .iter()
            .filter(|id| !locked.contains_key(id))
            .copied()
            .collect();
        if unlocked.is_empty() {
            break family;
        }
        // A conversation can be branched until its row is locked: what was found before is not used.
        let rows: Vec<(Uuid, String)> = query_as(LOCK)
            .bind(&unlocked)
            .fetch_all(&mut *connection)
            .await?;
        locked.extend(rows);
        // A deleted conversation has no row.
        for id in unlocked {
            locked.entry(id).or_default();
        }
    };
    let sources: Vec<Uuid> = query_scalar(SOURCES)
        .bind(&family)
        .fetch_all(&mut *connection)
        .await?;
    let documents: i64 = query_scalar(COUNT_DOCUMENTS)
        .bind(&sources)
        .bind(limit_with_next(MAX_FAMILY_MESSAGES))
        .fetch_one(&mut *connection)
        .await?;
    check_size(documents, MAX_FAMILY_MESSAGES)?;
    let owner = change.owner.as_str();
    let dept_id = change.dept_id.as_ref().map(DeptId::as_str);
    query(CHANGE_CONVERSATIONS)
        .bind(&family)
        .bind(owner)
        .bind(dept_id)
        .execute(&mut *connection)
        .await?;
    query(CHANGE_DOCUMENTS)
        .bind(sources)
        .bind(owner)
        .bind(dept_id)
        .execute(&mut *connection)
        .await?;
    locked.retain(|_, owner| !owner.is_empty());
    Ok(conversation_ids(locked.into_keys().collect()))
}

/// Returns the ids of a family, and of the deleted conversations that connect it.
async fn find_family(
    connection: &mut StoreConnection,
    change: &OwnerChange,
) -> Result<Vec<Uuid>, OperationError> {
    let id = change.conversation.id;
    let by_id = ConversationRef { id, user_id: None };
    let found = conversations::find(connection, &by_id).await?;
    let owner = previous_owner(found, &change.conversation, &change.owner)?;
    let family: Vec<Uuid> = query_scalar(FAMILY)
        .bind(id.as_uuid())
        .bind(owner.as_str())
        .bind(limit_with_next(MAX_FAMILY_CONVERSATIONS))
        .fetch_all(connection)
        .await?;
    check_size(
        family.len().try_into().unwrap_or(i64::MAX),
        MAX_FAMILY_CONVERSATIONS,
    )?;
    Ok(family)
}

fn conversation_ids(ids: Vec<Uuid>) -> Vec<ConversationId> {
    ids.into_iter().map(ConversationId::from_uuid).collect()
}
