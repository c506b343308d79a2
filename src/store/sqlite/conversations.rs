use chrono::{DateTime, Utc};
use sqlx::{SqliteConnection, query, query_scalar, sqlite::SqliteRow};
use uuid::Uuid;

use super::{
    ConversationRow, SqlitePool,
    connection::{self, Micros},
    sql,
};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationId, ConversationRef, DeptId,
        NewConversation, SessionId, Title, UserId,
    },
    store::{
        ConversationPage, ConversationQuery, ReusedKey, StoreError,
        conversations::conversation_reads, metadata_json, operation_error::OperationError,
    },
};

conversation_reads!(SqliteConnection, SqliteRow, Uuid::hyphenated);

const CREATE: &str = "
INSERT INTO conversations (id, user_id, dept_id, title, metadata, last_session_id,
                           session_attached, created_at, updated_at, activity, title_seq,
                           last_seq, own_after)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6 IS NULL THEN NULL ELSE abs($8) END, $7, $7, $8,
        CASE WHEN $4 IS NULL THEN NULL ELSE 0 END, $9, $9)";

const ID_IS_REFERENCED: &str = concat!(
    "SELECT ",
    sql::id_is_referenced!(),
    " OR EXISTS (SELECT 1 FROM pending_removals r WHERE r.source_id = $1)"
);

/// Last number of the messages of a deleted conversation that branches of the same user contain, or
/// that are still being deleted; `NULL` if the id cannot be used, also because its requests are still
/// stored. Parameters: $1 id, $2 user.
const LAST_REFERENCED: &str = concat!(
    "SELECT max(",
    sql::last_referenced!(),
    ", coalesce((SELECT max(r.upto_seq) FROM pending_removals r WHERE r.source_id = $1), 0)) \
     WHERE NOT ",
    sql::is_in_foreign_branches!(),
    " AND NOT EXISTS (SELECT 1 FROM pending_removals r WHERE r.source_id = $1 \
                       AND (r.is_import OR r.upto_seq = 0))"
);

const ATTACH: &str =
    "UPDATE conversations SET last_session_id = $2, session_attached = $3 WHERE id = $1";

const UPDATE: &str = "
UPDATE conversations
SET title = CASE WHEN $2 THEN $3 ELSE title END,
    title_seq = CASE WHEN $2 THEN CASE WHEN $3 IS NOT NULL THEN 0 END ELSE title_seq END,
    metadata = CASE WHEN $4 THEN $5 ELSE metadata END,
    updated_at = max(updated_at, $6),
    activity = $7
WHERE id = $1";

/// Creates a conversation, or returns the one that was created by the same call before.
pub(super) async fn create(
    writer: &SqlitePool,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let created = find_or_insert(&mut transaction, new, at).await;
    connection::end(transaction, created).await
}

async fn find_or_insert(
    connection: &mut SqliteConnection,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let by_id = ConversationRef {
        id: new.id,
        user_id: None,
    };
    if let Some(stored) = find(connection, &by_id).await? {
        return if new.is_created_as(&stored) {
            Ok(stored)
        } else {
            Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into())
        };
    }
    let reused = if new.reuses_id {
        last_referenced(connection, new).await?
    } else {
        None
    };
    if reused.is_none() {
        require_unreferenced(connection, new.id).await?;
    }
    let activity = connection::next_activity(connection).await?;
    query(CREATE)
        .bind(new.id.as_uuid().hyphenated())
        .bind(new.user_id.as_str())
        .bind(new.dept_id.as_ref().map(DeptId::as_str))
        .bind(new.title.as_ref().map(Title::as_str))
        .bind(new.metadata.as_ref().map(metadata_json::bindable))
        .bind(new.session_id.map(|id| id.as_uuid().hyphenated()))
        .bind(Micros::from(at))
        .bind(if new.is_listed { activity } else { -activity })
        .bind(reused.unwrap_or_default())
        .execute(&mut *connection)
        .await?;
    get_in(connection, &by_id).await
}

/// Finds the last number of a deleted conversation whose id a new one can have.
async fn last_referenced(
    connection: &mut SqliteConnection,
    new: &NewConversation,
) -> Result<Option<i64>, OperationError> {
    let found: Option<Option<i64>> = query_scalar(LAST_REFERENCED)
        .bind(new.id.as_uuid().hyphenated())
        .bind(new.user_id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(found.flatten())
}

/// Rejects the id of a conversation that exists or whose messages are still stored.
pub(super) async fn require_unused(
    connection: &mut SqliteConnection,
    id: ConversationId,
) -> Result<(), OperationError> {
    let by_id = ConversationRef { id, user_id: None };
    if find(connection, &by_id).await?.is_some() {
        return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
    }
    require_unreferenced(connection, id).await
}

async fn require_unreferenced(
    connection: &mut SqliteConnection,
    id: ConversationId,
) -> Result<(), OperationError> {
    let is_referenced: bool = query_scalar(ID_IS_REFERENCED)
        .bind(id.as_uuid().hyphenated())
        .fetch_one(connection)
        .await?;
    if is_referenced {
        return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
    }
    Ok(())
}

/// Reads a conversation.
pub(super) async fn get(
    readers: &SqlitePool,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let mut reader = connection::reader(readers).await?;
    get_in(&mut reader, conversation).await
}

/// Reads a conversation on the given connection.
pub(super) async fn get_in(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let found = find(connection, conversation).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

/// Attaches a session to a conversation, and reads the conversation.
pub(super) async fn attach_session(
    readers: &SqlitePool,
    writer: &SqlitePool,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Conversation, OperationError> {
    // Most turns continue with the session of the previous turn, which writes nothing.
    let mut reader = connection::reader(readers).await?;
    let attached = find_if_current(&mut reader, conversation, session).await?;
    drop(reader);
    if let Some(conversation) = attached {
        return Ok(conversation);
    }
    let mut transaction = connection::begin(writer).await?;
    let attached = attach(&mut transaction, conversation, session).await;
    connection::end(transaction, attached).await
}

async fn attach(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Conversation, OperationError> {
    let found = get_in(connection, conversation).await?;
    let now = connection::next_activity(connection).await?;
    query(ATTACH)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(session.as_uuid().hyphenated())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(found)
}

/// Reads the current conversation of a session.
pub(super) async fn current_of_session(
    readers: &SqlitePool,
    session: SessionId,
    user: &UserId,
) -> Result<Option<Conversation>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    find_current(&mut reader, session, user).await
}

/// Reads a page of a user's conversations.
pub(super) async fn list(
    readers: &SqlitePool,
    query: &ConversationQuery,
) -> Result<ConversationPage, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_page(&mut reader, query).await
}

/// Changes the title or the metadata of a conversation.
pub(super) async fn update(
    readers: &SqlitePool,
    writer: &SqlitePool,
    conversation: &ConversationRef,
    changes: &ConversationChanges,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    if changes.title.is_none() && changes.metadata.is_none() {
        return get(readers, conversation).await;
    }
    let mut transaction = connection::begin(writer).await?;
    let updated = apply(&mut transaction, conversation, changes, at).await;
    connection::end(transaction, updated).await
}

async fn apply(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
    ConversationChanges { title, metadata }: &ConversationChanges,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    get_in(connection, conversation).await?;
    let activity = connection::next_activity(connection).await?;
    query(UPDATE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(title.is_some())
        .bind(title.as_ref().and_then(Option::as_ref).map(Title::as_str))
        .bind(metadata.is_some())
        .bind(
            metadata
                .as_ref()
                .and_then(Option::as_ref)
                .map(metadata_json::bindable),
        )
        .bind(Micros::from(at))
        .bind(activity)
        .execute(&mut *connection)
        .await?;
    get_in(connection, conversation).await
}
