use chrono::{DateTime, Utc};
use sqlx::{
    FromRow, Row, SqliteConnection, query, query_as, query_scalar, sqlite::SqliteRow, types::Json,
};

use super::{
    ConversationRow, Pool,
    connection::{self, Micros},
    sql,
};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationRef, DeptId, NewConversation, SessionId,
        Title, UserId,
    },
    store::{
        ConversationPage, ConversationQuery, Reused, StoreError, failure::OperationError, rows,
    },
};

const CREATE: &str = "
INSERT INTO conversations (id, user_id, dept_id, title, metadata, last_session_id,
                           session_attached, created_at, updated_at, activity)
VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6 IS NULL THEN NULL ELSE $8 END, $7, $7, $8)";

const ID_IS_KEPT: &str = concat!("SELECT ", sql::id_is_kept!());

const ATTACH: &str =
    "UPDATE conversations SET last_session_id = $2, session_attached = $3 WHERE id = $1";

const UPDATE: &str = "
UPDATE conversations
SET title = CASE WHEN $2 THEN $3 ELSE title END,
    metadata = CASE WHEN $4 THEN $5 ELSE metadata END,
    updated_at = max(updated_at, $6),
    activity = $7
WHERE id = $1";

pub(super) async fn create(
    writer: &Pool,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let named = ConversationRef {
        id: new.id,
        user_id: None,
    };
    if let Some(stored) = find(&mut transaction, &named).await? {
        return if new.is_created_as(&stored) {
            Ok(stored)
        } else {
            Err(StoreError::AlreadyExists(Reused::ConversationId).into())
        };
    }
    let kept: bool = query_scalar(ID_IS_KEPT)
        .bind(new.id.as_uuid().hyphenated())
        .fetch_one(&mut *transaction)
        .await?;
    if kept {
        return Err(StoreError::AlreadyExists(Reused::ConversationId).into());
    }
    let activity = connection::next_activity(&mut transaction).await?;
    query(CREATE)
        .bind(new.id.as_uuid().hyphenated())
        .bind(new.user_id.as_str())
        .bind(new.dept_id.as_ref().map(DeptId::as_str))
        .bind(new.title.as_ref().map(Title::as_str))
        .bind(new.metadata.as_ref().map(Json))
        .bind(new.session_id.map(|id| id.as_uuid().hyphenated()))
        .bind(Micros::from(at))
        .bind(activity)
        .execute(&mut *transaction)
        .await?;
    let created = find_one(&mut transaction, &named).await?;
    connection::commit(transaction).await?;
    Ok(created)
}

pub(super) async fn get(
    readers: &Pool,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let mut reader = connection::reader(readers).await?;
    find_one(&mut reader, conversation).await
}

/// Reads a conversation, or says that there is none.
pub(super) async fn find_one(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let found = find(connection, conversation).await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

async fn find(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
) -> Result<Option<Conversation>, OperationError> {
    let row: Option<ConversationRow> = query_as(sql::CONVERSATION)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(connection)
        .await?;
    Ok(row.map(ConversationRow::read).transpose()?)
}

pub(super) async fn attach_session(
    readers: &Pool,
    writer: &Pool,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Conversation, OperationError> {
    // Most turns go on with the session of the last one: nothing to write then.
    let mut reader = connection::reader(readers).await?;
    let attached: Option<ConversationRow> = query_as(sql::CONVERSATION_ON_SESSION)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(session.as_uuid().hyphenated())
        .fetch_optional(&mut *reader)
        .await?;
    drop(reader);
    if let Some(row) = attached {
        return Ok(row.read()?);
    }
    let mut transaction = connection::begin(writer).await?;
    let found = find_one(&mut transaction, conversation).await?;
    let now = connection::next_activity(&mut transaction).await?;
    query(ATTACH)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(session.as_uuid().hyphenated())
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    connection::commit(transaction).await?;
    Ok(found)
}

pub(super) async fn of_session(
    readers: &Pool,
    session: SessionId,
    user: &UserId,
) -> Result<Option<Conversation>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    let row: Option<ConversationRow> = query_as(sql::CONVERSATION_OF_SESSION)
        .bind(session.as_uuid().hyphenated())
        .bind(user.as_str())
        .fetch_optional(&mut *reader)
        .await?;
    Ok(row.map(ConversationRow::read).transpose()?)
}

pub(super) async fn list(
    readers: &Pool,
    wanted: &ConversationQuery,
) -> Result<ConversationPage, OperationError> {
    let mut reader = connection::reader(readers).await?;
    let rows = query(sql::LIST)
        .bind(wanted.user_id.as_str())
        .bind(wanted.dept_id.as_ref().map(DeptId::as_str))
        .bind(wanted.after.unwrap_or(i64::MAX))
        // One more tells whether there is a next page.
        .bind(i64::from(wanted.limit) + 1)
        .fetch_all(&mut *reader)
        .await?;
    rows::page(rows.iter().map(read_listed), wanted.limit)
}

/// Reads a row of a list, with its activity.
pub(super) fn read_listed(row: &SqliteRow) -> Result<(Conversation, i64), OperationError> {
    let activity = row.try_get("activity")?;
    Ok((ConversationRow::from_row(row)?.read()?, activity))
}

pub(super) async fn update(
    readers: &Pool,
    writer: &Pool,
    conversation: &ConversationRef,
    changes: &ConversationChanges,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let ConversationChanges { title, metadata } = changes;
    if title.is_none() && metadata.is_none() {
        return get(readers, conversation).await;
    }
    let mut transaction = connection::begin(writer).await?;
    find_one(&mut transaction, conversation).await?;
    let activity = connection::next_activity(&mut transaction).await?;
    query(UPDATE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(title.is_some())
        .bind(title.as_ref().and_then(Option::as_ref).map(Title::as_str))
        .bind(metadata.is_some())
        .bind(metadata.as_ref().and_then(Option::as_ref).map(Json))
        .bind(Micros::from(at))
        .bind(activity)
        .execute(&mut *transaction)
        .await?;
    let updated = find_one(&mut transaction, conversation).await?;
    connection::commit(transaction).await?;
    Ok(updated)
}
