use sqlx::{query, query_as};

use super::{
    ConversationRow, PostgresPool,
    connection::PooledConnection,
    conversations::read_branches,
    lineage::{is_titled_after, share},
    sql,
    store_connection::StoreConnection,
    transaction::{BEGIN, before_commit, end},
};
use crate::{
    domain::{Conversation, ConversationRef, Title, UserId},
    store::{Branch, ConversationPage, ReusedKey, StoreError, operation_error::OperationError},
};

/// Locks the parent, so that neither its own messages nor those of its lineage are deleted or
/// truncated while the branch is created.
const LOCK_PARENT: &str = concat!(
    "SELECT c.last_seq, c.own_after FROM conversations c WHERE ",
    sql::conversation_condition!(),
    " FOR SHARE"
);

/// Parameters: $1 branch, $2 parent, $3 number, $4 title or NULL, $5 time, $6 whether the parent's
/// title is left out, because it was derived from a message that the branch does not contain.
const CREATE: &str = concat!(
    "INSERT INTO conversations AS c (id, user_id, dept_id, title, metadata, last_seq, own_after, \
        parent_id, branched_at_seq, created_at, updated_at, title_seq, compacted_upto_seq, \
        uncompacted_tokens, has_pinned) \
     SELECT $1, p.user_id, p.dept_id, \
        CASE WHEN $6 THEN $4 ELSE coalesce($4, p.title) END, \
        p.metadata, $3, $3, p.id, $3, $5, $5, \
        CASE WHEN $4 IS NOT NULL THEN 0 WHEN $6 THEN NULL ELSE p.title_seq END, \
        CASE WHEN p.compacted_upto_seq <= $3 THEN p.compacted_upto_seq ELSE 0 END, \
        p.uncompacted_tokens, p.has_pinned \
     FROM conversations p WHERE p.id = $2 AND NOT (",
    sql::id_is_referenced!(),
    ") ON CONFLICT (id) DO NOTHING RETURNING ",
    sql::conversation_columns!()
);

/// Creates a branch.
pub(super) async fn branch(
    pool: &PostgresPool,
    branch: &Branch,
) -> Result<Conversation, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let created = before_commit(connection.wait(), create(&mut connection, branch)).await;
    end(connection, created).await
}

async fn create(
    connection: &mut StoreConnection,
    branch: &Branch,
) -> Result<Conversation, OperationError> {
    let (id, parent) = (branch.id.as_uuid(), branch.parent.id.as_uuid());
    connection.begin(&BEGIN).await?;
    let found: Option<(i64, i64)> = query_as(LOCK_PARENT)
        .bind(parent)
        .bind(branch.parent.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(&mut *connection)
        .await?;
    let (last_seq, own_after) = found.ok_or(StoreError::NotFound)?;
    if branch.at_seq > last_seq {
        let field = "at_seq";
        return Err(StoreError::BeyondEnd { field, last_seq }.into());
    }
    let is_titled_later = is_titled_after(connection, parent, branch.at_seq).await?;
    let row: Option<ConversationRow> = query_as(CREATE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .bind(branch.title.as_ref().map(Title::as_str))
        .bind(branch.at)
        .bind(is_titled_later)
        .fetch_optional(&mut *connection)
        .await?;
    let row = row.ok_or(StoreError::AlreadyExists(ReusedKey::ConversationId))?;
    share(connection, id, parent, own_after, branch.at_seq).await?;
    query(sql::COPY_COMPACTION)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .execute(connection)
        .await?;
    Ok(row.decode()?)
}

/// Reads a page of a conversation's branches.
pub(super) async fn list(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    after: Option<i64>,
    limit: u32,
) -> Result<ConversationPage, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let page = read_branches(&mut connection, conversation, after, limit).await;
    connection.release(page).await
}
