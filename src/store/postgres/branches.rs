use sqlx::{PgConnection, postgres::PgRow, query, query_as, raw_sql};

use super::{
    ConversationRow, Pool,
    connection::Lease,
    conversations::{find, read_listed},
    sql,
    transaction::{BEGIN, before_commit, end},
};
use crate::{
    domain::{Conversation, ConversationRef, Title, UserId},
    store::{Branch, ConversationPage, StoreError, failure::OperationError, rows},
};

/// Nobody removes the parent or ends it earlier while it is branched from; what
/// its lineage shares with it stays for as long.
const PARENT: &str = concat!(
    "SELECT c.last_seq, c.own_after FROM conversations c WHERE ",
    sql::named_conversation!(),
    " FOR SHARE"
);

/// $1 branch, $2 parent, $3 number, $4 title or NULL, $5 time.
const CREATE: &str = concat!(
    "INSERT INTO conversations AS c (id, user_id, dept_id, title, metadata, last_seq, own_after, \
        parent_id, branched_at_seq, created_at, updated_at) \
     SELECT $1, p.user_id, p.dept_id, coalesce($4, p.title), p.metadata, $3, $3, p.id, $3, $5, $5 \
     FROM conversations p WHERE p.id = $2 RETURNING ",
    sql::conversation_columns!()
);

/// Creates a branch.
pub(super) async fn branch(pool: &Pool, branch: &Branch) -> Result<Conversation, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let created = before_commit(create(&mut lease, branch)).await;
    end(lease, created).await
}

async fn create(
    connection: &mut PgConnection,
    branch: &Branch,
) -> Result<Conversation, OperationError> {
    let (id, parent) = (branch.id.as_uuid(), branch.parent.id.as_uuid());
    raw_sql(BEGIN).execute(&mut *connection).await?;
    let found: Option<(i64, i64)> = query_as(PARENT)
        .bind(parent)
        .bind(branch.parent.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(&mut *connection)
        .await?;
    let (last_seq, own_after) = found.ok_or(StoreError::NotFound)?;
    if branch.at_seq > last_seq {
        return Err(StoreError::BeyondEnd { last_seq }.into());
    }
    let row: ConversationRow = query_as(CREATE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .bind(branch.title.as_ref().map(Title::as_str))
        .bind(branch.at)
        .fetch_one(&mut *connection)
        .await?;
    query(sql::COPY_LINEAGE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .execute(&mut *connection)
        .await?;
    if branch.at_seq > own_after {
        query(sql::ADD_LINEAGE)
            .bind(id)
            .bind(parent)
            .bind(own_after)
            .bind(branch.at_seq)
            .execute(connection)
            .await?;
    }
    Ok(row.read()?)
}

/// A page of a conversation's branches.
pub(super) async fn list(
    pool: &Pool,
    conversation: &ConversationRef,
    after: Option<i64>,
    limit: u32,
) -> Result<ConversationPage, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let rows = read(&mut lease, conversation, after, limit).await;
    rows::page(lease.release(rows)?.iter().map(read_listed), limit)
}

async fn read(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<PgRow>, OperationError> {
    let parent = find(connection, conversation).await?;
    let parent = parent.ok_or(StoreError::NotFound)?;
    Ok(query(sql::BRANCHES)
        .bind(parent.id.as_uuid())
        .bind(parent.user_id.as_str())
        .bind(after.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch_all(connection)
        .await?)
}
