use sqlx::{query, query_scalar};

use super::{
    Pool,
    connection::{self, Micros},
    conversations::{find_one, read_listed},
    sql,
};
use crate::{
    domain::{Conversation, ConversationRef, Title},
    store::{Branch, ConversationPage, StoreError, failure::OperationError, rows},
};

const OWN_AFTER: &str = "SELECT own_after FROM conversations WHERE id = $1";

const CREATE: &str = "
INSERT INTO conversations (id, user_id, dept_id, title, metadata, last_seq, own_after, parent_id,
                           branched_at_seq, activity, created_at, updated_at)
SELECT $1, p.user_id, p.dept_id, coalesce($4, p.title), p.metadata, $3, $3, p.id, $3, $5, $6, $6
FROM conversations p WHERE p.id = $2";

/// Creates a branch.
pub(super) async fn branch(writer: &Pool, branch: &Branch) -> Result<Conversation, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let parent = find_one(&mut transaction, &branch.parent).await?;
    if branch.at_seq > parent.last_seq {
        let last_seq = parent.last_seq;
        return Err(StoreError::BeyondEnd { last_seq }.into());
    }
    let (id, parent) = (
        branch.id.as_uuid().hyphenated(),
        parent.id.as_uuid().hyphenated(),
    );
    let activity = connection::next_activity(&mut transaction).await?;
    query(CREATE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .bind(branch.title.as_ref().map(Title::as_str))
        .bind(activity)
        .bind(Micros::from(branch.at))
        .execute(&mut *transaction)
        .await?;
    query(sql::COPY_LINEAGE)
        .bind(id)
        .bind(parent)
        .bind(branch.at_seq)
        .execute(&mut *transaction)
        .await?;
    let own_after: i64 = query_scalar(OWN_AFTER)
        .bind(parent)
        .fetch_one(&mut *transaction)
        .await?;
    if branch.at_seq > own_after {
        query(sql::ADD_LINEAGE)
            .bind(id)
            .bind(parent)
            .bind(own_after)
            .bind(branch.at_seq)
            .execute(&mut *transaction)
            .await?;
    }
    let named = ConversationRef {
        id: branch.id,
        user_id: None,
    };
    let created = find_one(&mut transaction, &named).await?;
    connection::commit(transaction).await?;
    Ok(created)
}

/// A page of a conversation's branches.
pub(super) async fn list(
    readers: &Pool,
    conversation: &ConversationRef,
    after: Option<i64>,
    limit: u32,
) -> Result<ConversationPage, OperationError> {
    let mut reader = connection::reader(readers).await?;
    let parent = find_one(&mut reader, conversation).await?;
    let rows = query(sql::BRANCHES)
        .bind(parent.id.as_uuid().hyphenated())
        .bind(parent.user_id.as_str())
        .bind(after.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *reader)
        .await?;
    rows::page(rows.iter().map(read_listed), limit)
}
