use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow, query, query_as, types::Json};

use super::{ConversationRow, Pool, connection::Lease, sql};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationRef, DeptId, NewConversation, SessionId,
        Title, UserId,
    },
    store::{
        ConversationPage, ConversationQuery, Reused, StoreError, failure::OperationError, rows,
    },
};

const CREATE: &str = concat!(
    "INSERT INTO conversations AS c (id, user_id, dept_id, title, metadata, last_session_id, \
        session_attached, created_at, updated_at) \
     SELECT $1, $2, $3, $4, $5, $6, \
        CASE WHEN $6 IS NULL THEN NULL ELSE nextval('activity_order') END, $7, $7 \
     WHERE NOT (",
    sql::id_is_kept!(),
    ") ON CONFLICT (id) DO NOTHING RETURNING ",
    sql::conversation_columns!()
);

const ATTACH: &str = concat!(
    "UPDATE conversations c \
     SET last_session_id = $3, session_attached = nextval('activity_order') WHERE ",
    sql::named_conversation!(),
    " RETURNING ",
    sql::conversation_columns!()
);

const UPDATE: &str = concat!(
    "UPDATE conversations c \
     SET title = CASE WHEN $3 THEN $4 ELSE c.title END, \
         metadata = CASE WHEN $5 THEN $6 ELSE c.metadata END, \
         updated_at = greatest(c.updated_at, $7), \
         activity = nextval('activity_order') WHERE ",
    sql::named_conversation!(),
    " RETURNING ",
    sql::conversation_columns!()
);

pub(super) async fn create(
    pool: &Pool,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let outcome = insert(&mut lease, new, at).await;
    lease.release(outcome)
}

async fn insert(
    connection: &mut PgConnection,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let created: Option<ConversationRow> = query_as(CREATE)
        .bind(new.id.as_uuid())
        .bind(new.user_id.as_str())
        .bind(new.dept_id.as_ref().map(DeptId::as_str))
        .bind(new.title.as_ref().map(Title::as_str))
        .bind(new.metadata.as_ref().map(Json))
        .bind(new.session_id.map(SessionId::as_uuid))
        .bind(at)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = created {
        return Ok(row.read()?);
    }
    let taken = ConversationRef {
        id: new.id,
        user_id: None,
    };
    match find(connection, &taken).await? {
        Some(stored) if new.is_created_as(&stored) => Ok(stored),
        // Deleted in between, it was still taken at that moment.
        _ => Err(StoreError::AlreadyExists(Reused::ConversationId).into()),
    }
}

pub(super) async fn get(
    pool: &Pool,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let found = find(&mut lease, conversation).await;
    lease.release(found)?.ok_or(StoreError::NotFound.into())
}

/// Reads a conversation, if there is such a one.
pub(super) async fn find(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<Option<Conversation>, OperationError> {
    let row: Option<ConversationRow> = query_as(sql::CONVERSATION)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(connection)
        .await?;
    Ok(row.map(ConversationRow::read).transpose()?)
}

pub(super) async fn attach_session(
    pool: &Pool,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Conversation, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let attached = attach(&mut lease, conversation, session).await;
    lease.release(attached)?.ok_or(StoreError::NotFound.into())
}

async fn attach(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Option<Conversation>, OperationError> {
    // Most turns go on with the session of the last one: nothing to write then.
    for statement in [sql::CONVERSATION_ON_SESSION, ATTACH] {
        let row: Option<ConversationRow> = query_as(statement)
            .bind(conversation.id.as_uuid())
            .bind(conversation.user_id.as_ref().map(UserId::as_str))
            .bind(session.as_uuid())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return Ok(Some(row.read()?));
        }
    }
    Ok(None)
}

pub(super) async fn of_session(
    pool: &Pool,
    session: SessionId,
    user: &UserId,
) -> Result<Option<Conversation>, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let row: Result<Option<ConversationRow>, OperationError> =
        query_as(sql::CONVERSATION_OF_SESSION)
            .bind(session.as_uuid())
            .bind(user.as_str())
            .fetch_optional(&mut *lease)
            .await
            .map_err(OperationError::from);
    Ok(lease.release(row)?.map(ConversationRow::read).transpose()?)
}

pub(super) async fn list(
    pool: &Pool,
    wanted: &ConversationQuery,
) -> Result<ConversationPage, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let rows = query(sql::LIST)
        .bind(wanted.user_id.as_str())
        .bind(wanted.dept_id.as_ref().map(DeptId::as_str))
        .bind(wanted.after.unwrap_or(i64::MAX))
        // One more tells whether there is a next page.
        .bind(i64::from(wanted.limit) + 1)
        .fetch_all(&mut *lease)
        .await
        .map_err(OperationError::from);
    rows::page(lease.release(rows)?.iter().map(read_listed), wanted.limit)
}

/// Reads a row of a list, with its activity.
pub(super) fn read_listed(row: &PgRow) -> Result<(Conversation, i64), OperationError> {
    let activity = row.try_get("activity")?;
    Ok((ConversationRow::from_row(row)?.read()?, activity))
}

pub(super) async fn update(
    pool: &Pool,
    conversation: &ConversationRef,
    changes: &ConversationChanges,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let ConversationChanges { title, metadata } = changes;
    if title.is_none() && metadata.is_none() {
        return get(pool, conversation).await;
    }
    let mut lease = Lease::take(pool).await?;
    let row: Result<Option<ConversationRow>, OperationError> = query_as(UPDATE)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(title.is_some())
        .bind(title.as_ref().and_then(Option::as_ref).map(Title::as_str))
        .bind(metadata.is_some())
        .bind(metadata.as_ref().and_then(Option::as_ref).map(Json))
        .bind(at)
        .fetch_optional(&mut *lease)
        .await
        .map_err(OperationError::from);
    let row = lease.release(row)?.ok_or(StoreError::NotFound)?;
    Ok(row.read()?)
}
