use sqlx::{SqliteConnection, query, query_scalar};

use super::{
    SqlitePool,
    connection::{self, Micros},
    conversations::{get_in, read_branches, require_unused},
    lineage::{is_titled_after, share},
};
use crate::{
    domain::{Conversation, ConversationRef, Title},
    store::{Branch, ConversationPage, StoreError, operation_error::OperationError, sql},
};

/// Number after which a conversation's own messages begin.
pub(super) const OWN_AFTER: &str = "SELECT own_after FROM conversations WHERE id = $1";

/// Parameters: those of the statement on PostgreSQL, with $5 activity, $6 time and $7 for its $6.
const CREATE: &str = "
INSERT INTO conversations (id, user_id, dept_id, title, metadata, last_seq, own_after, parent_id,
                           branched_at_seq, activity, created_at, updated_at, title_seq,
                           compacted_upto_seq, uncompacted_tokens, has_pinned)
SELECT $1, p.user_id, p.dept_id,
       CASE WHEN $7 THEN $4 ELSE coalesce($4, p.title) END,
       p.metadata, $3, $3, p.id, $3, $5, $6, $6,
       CASE WHEN $4 IS NOT NULL THEN 0 WHEN $7 THEN NULL ELSE p.title_seq END,
       CASE WHEN p.compacted_upto_seq <= $3 THEN p.compacted_upto_seq ELSE 0 END,
       p.uncompacted_tokens, p.has_pinned
FROM conversations p WHERE p.id = $2";

/// Creates a branch.
pub(super) async fn branch(
    writer: &SqlitePool,
    branch: &Branch,
) -> Result<Conversation, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let created = create(&mut transaction, branch).await;
    connection::end(transaction, created).await
}

async fn create(
    connection: &mut SqliteConnection,
    branch: &Branch,
) -> Result<Conversation, OperationError> {
    let parent = get_in(connection, &branch.parent).await?;
    require_unused(connection, branch.id).await?;
    if branch.at_seq > parent.last_seq {
        let last_seq = parent.last_seq;
        let field = "at_seq";
        return Err(StoreError::BeyondEnd { field, last_seq }.into());
    }
    let (id, parent) = (
        branch.id.as_uuid().hyphenated(),
        parent.id.as_uuid().hyphenated(),
    );
    let is_titled_later = is_titled_after(connection, parent, branch.at_seq).await?;
    let activity = connection::next_activity(connection).await?;
    query(CREATE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .bind(branch.title.as_ref().map(Title::as_str))
        .bind(activity)
        .bind(Micros::from(branch.at))
        .bind(is_titled_later)
        .execute(&mut *connection)
        .await?;
    let own_after: i64 = query_scalar(OWN_AFTER)
        .bind(parent)
        .fetch_one(&mut *connection)
        .await?;
    share(connection, id, parent, own_after, branch.at_seq).await?;
    query(sql::COPY_COMPACTION)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .execute(&mut *connection)
        .await?;
    let created = ConversationRef {
        id: branch.id,
        user_id: None,
    };
    get_in(connection, &created).await
}

/// Reads a page of a conversation's branches.
pub(super) async fn list(
    readers: &SqlitePool,
    conversation: &ConversationRef,
    after: Option<i64>,
    limit: u32,
) -> Result<ConversationPage, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_branches(&mut reader, conversation, after, limit).await
}
