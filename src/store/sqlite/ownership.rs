use serde_json::Value;
use sqlx::{SqliteConnection, query, query_scalar};
use uuid::fmt::Hyphenated;

use super::{SqlitePool, connection, conversations};
use crate::{
    domain::{ConversationId, ConversationRef, DeptId},
    store::{
        OwnerChange,
        operation_error::OperationError,
        ownership::{MAX_FAMILY_CONVERSATIONS, MAX_FAMILY_MESSAGES, check_size, previous_owner},
        rows::limit_with_next,
    },
};

/// Condition that a conversation is not one of another user. Parameter: $2 owner.
macro_rules! is_not_foreign {
    ($id:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM conversations o WHERE o.id = ",
            $id,
            " AND o.user_id <> $2)"
        )
    };
}

/// Finds the conversations that are connected with one, also by deleted ones. Parameters: $1
/// conversation, $2 owner, $3 limit. The `+` excludes the index by user, which would be read for each
/// conversation.
const FAMILY: &str = concat!(
    "WITH RECURSIVE family (id) AS (
        SELECT $1
        UNION SELECT l.source_id FROM family f CROSS JOIN lineage l ON l.conversation_id = f.id
            WHERE l.upto_seq = (SELECT min(s.upto_seq) FROM lineage s WHERE s.conversation_id = f.id)
              AND ",
    is_not_foreign!("l.source_id"),
    "   UNION SELECT l.conversation_id FROM family f CROSS JOIN lineage l ON l.source_id = f.id
            WHERE ",
    is_not_foreign!("l.conversation_id"),
    "   UNION SELECT c.parent_id FROM family f CROSS JOIN conversations c ON c.id = f.id
            WHERE c.parent_id IS NOT NULL AND ",
    is_not_foreign!("c.parent_id"),
    "   UNION SELECT c.id FROM family f CROSS JOIN conversations c ON c.parent_id = f.id
            WHERE +c.user_id = $2
    )
    SELECT f.id FROM family f LIMIT CAST($3 AS INTEGER)"
);

/// Finds the ids that messages of conversations are stored under. Parameter: $1 conversations, a JSON
/// array.
const SOURCES: &str = "SELECT value FROM json_each($1) \
    UNION SELECT l.source_id FROM json_each($1) i CROSS JOIN lineage l ON l.conversation_id = i.value";

/// Counts documents up to a limit. Parameters: $1 ids that their messages are stored under, a JSON
/// array, $2 limit.
const COUNT_DOCUMENTS: &str = "SELECT count(*) FROM ( \
    SELECT 1 FROM json_each($1) i CROSS JOIN message_documents d ON d.conversation_id = i.value \
    LIMIT CAST($2 AS INTEGER))";

/// Changes conversations, and returns all that exist. Parameters: $1 ids, a JSON array, $2 owner, $3
/// department or NULL.
const CHANGE_CONVERSATIONS: &str = "UPDATE conversations SET user_id = $2, \
        dept_id = coalesce($3, dept_id), \
        last_session_id = CASE WHEN user_id = $2 THEN last_session_id END, \
        session_attached = CASE WHEN user_id = $2 THEN session_attached END \
    WHERE id IN (SELECT value FROM json_each($1)) RETURNING id";

/// Changes documents. Parameters: $1 ids that their messages are stored under, a JSON array, $2 owner,
/// $3 department or NULL.
const CHANGE_DOCUMENTS: &str = "UPDATE message_documents SET user_id = $2, \
        dept_id = coalesce($3, dept_id) \
    WHERE conversation_id IN (SELECT value FROM json_each($1)) \
        AND (user_id <> $2 OR dept_id IS NOT coalesce($3, dept_id))";

/// Finds the family of a conversation.
pub(super) async fn family(
    readers: &SqlitePool,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    Ok(conversation_ids(find_family(&mut reader, change).await?))
}

/// Changes the owner of the family of a conversation.
pub(super) async fn change_owner(
    writer: &SqlitePool,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let changed = find_and_change(&mut transaction, change).await;
    connection::end(transaction, changed).await
}

async fn find_and_change(
    connection: &mut SqliteConnection,
    change: &OwnerChange,
) -> Result<Vec<ConversationId>, OperationError> {
    let family = json_array(find_family(connection, change).await?);
    let sources: Vec<Hyphenated> = query_scalar(SOURCES)
        .bind(&family)
        .fetch_all(&mut *connection)
        .await?;
    let sources = json_array(sources);
    let documents: i64 = query_scalar(COUNT_DOCUMENTS)
        .bind(&sources)
        .bind(limit_with_next(MAX_FAMILY_MESSAGES))
        .fetch_one(&mut *connection)
        .await?;
    check_size(documents, MAX_FAMILY_MESSAGES)?;
    let owner = change.owner.as_str();
    let dept_id = change.dept_id.as_ref().map(DeptId::as_str);
    let mut changed: Vec<Hyphenated> = query_scalar(CHANGE_CONVERSATIONS)
        .bind(family)
        .bind(owner)
        .bind(dept_id)
        .fetch_all(&mut *connection)
        .await?;
    query(CHANGE_DOCUMENTS)
        .bind(sources)
        .bind(owner)
        .bind(dept_id)
        .execute(connection)
        .await?;
    changed.sort_by_key(|id| id.into_uuid());
    Ok(conversation_ids(changed))
}

/// Returns the ids of a family, and of the deleted conversations that connect it.
async fn find_family(
    connection: &mut SqliteConnection,
    change: &OwnerChange,
) -> Result<Vec<Hyphenated>, OperationError> {
    let id = change.conversation.id;
    let by_id = ConversationRef { id, user_id: None };
    let found = conversations::find(connection, &by_id).await?;
    let owner = previous_owner(found, &change.conversation, &change.owner)?;
    let family: Vec<Hyphenated> = query_scalar(FAMILY)
        .bind(id.as_uuid().hyphenated())
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

fn json_array(ids: Vec<Hyphenated>) -> String {
    let ids: Value = ids.into_iter().map(|id| id.to_string()).collect();
    ids.to_string()
}

fn conversation_ids(ids: Vec<Hyphenated>) -> Vec<ConversationId> {
    let ids = ids.into_iter();
    ids.map(|id| ConversationId::from_uuid(id.into_uuid()))
        .collect()
}
