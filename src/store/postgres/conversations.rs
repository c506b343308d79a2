use chrono::{DateTime, Utc};
use sqlx::{postgres::PgRow, query_as};

use super::{
    ConversationRow, PostgresPool, connection::PooledConnection, sql,
    store_connection::StoreConnection,
};
use crate::{
    domain::{
        Conversation, ConversationChanges, ConversationRef, DeptId, NewConversation, SessionId,
        Title, UserId,
    },
    store::{
        ConversationPage, ConversationQuery, ReusedKey, StoreError,
        conversations::conversation_reads, metadata_json, operation_error::OperationError,
    },
};

conversation_reads!(StoreConnection, PgRow, std::convert::identity);

const CREATE: &str = concat!(
    "INSERT INTO conversations AS c (id, user_id, dept_id, title, metadata, last_session_id, \
        session_attached, created_at, updated_at, title_seq, activity, last_seq, own_after) \
     SELECT $1, $2, $3, $4, $5, $6, \
        CASE WHEN $6 IS NULL THEN NULL ELSE nextval('activity_order') END, $7, $7, \
        CASE WHEN $4 IS NULL THEN NULL ELSE 0 END, \
        CASE WHEN $8 THEN nextval('activity_order') ELSE -nextval('activity_order') END, \
        r.last_seq, r.last_seq FROM (SELECT coalesce(",
    sql::last_referenced!(),
    ", 0) AS last_seq) AS r WHERE r.last_seq = 0 AND NOT (",
    sql::id_is_referenced!(),
    ") OR $9 AND r.last_seq > 0 AND NOT (",
    sql::is_in_foreign_branches!(),
    ") ON CONFLICT (id) DO NOTHING RETURNING ",
    sql::conversation_columns!()
);

const ATTACH: &str = concat!(
    "UPDATE conversations c \
     SET last_session_id = $3, session_attached = nextval('activity_order') WHERE ",
    sql::conversation_condition!(),
    " RETURNING ",
    sql::conversation_columns!()
);

const UPDATE: &str = concat!(
    "UPDATE conversations c \
     SET title = CASE WHEN $3 THEN $4 ELSE c.title END, \
         title_seq = CASE WHEN $3 THEN CASE WHEN $4 IS NOT NULL THEN 0 END ELSE c.title_seq END, \
         metadata = CASE WHEN $5 THEN $6 ELSE c.metadata END, \
         updated_at = greatest(c.updated_at, $7), \
         activity = nextval('activity_order') WHERE ",
    sql::conversation_condition!(),
    " RETURNING ",
    sql::conversation_columns!()
);

/// Creates a conversation, or returns the one that was created by the same call before.
pub(super) async fn create(
    pool: &PostgresPool,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let created = insert_or_find(&mut connection, new, at).await;
    connection.release(created).await
}

async fn insert_or_find(
    connection: &mut StoreConnection,
    new: &NewConversation,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let created: Option<ConversationRow> = query_as(CREATE)
        .bind(new.id.as_uuid())
        .bind(new.user_id.as_str())
        .bind(new.dept_id.as_ref().map(DeptId::as_str))
        .bind(new.title.as_ref().map(Title::as_str))
        .bind(new.metadata.as_ref().map(metadata_json::bindable))
        .bind(new.session_id.map(SessionId::as_uuid))
        .bind(at)
        .bind(new.is_listed)
        .bind(new.reuses_id)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = created {
        return Ok(row.decode()?);
    }
    let by_id = ConversationRef {
        id: new.id,
        user_id: None,
    };
    match find(connection, &by_id).await? {
        Some(stored) if new.is_created_as(&stored) => Ok(stored),
        // If it was deleted in between, the id was still in use at the time of the INSERT.
        _ => Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into()),
    }
}

/// Reads a conversation.
pub(super) async fn get(
    pool: &PostgresPool,
    conversation: &ConversationRef,
) -> Result<Conversation, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let found = find(&mut connection, conversation).await;
    connection
        .release(found)
        .await?
        .ok_or(StoreError::NotFound.into())
}

/// Attaches a session to a conversation, and reads the conversation.
pub(super) async fn attach_session(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Conversation, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let attached = attach(&mut connection, conversation, session).await;
    connection
        .release(attached)
        .await?
        .ok_or(StoreError::NotFound.into())
}

async fn attach(
    connection: &mut StoreConnection,
    conversation: &ConversationRef,
    session: SessionId,
) -> Result<Option<Conversation>, OperationError> {
    // Most turns continue with the session of the previous turn, which writes nothing.
    if let Some(attached) = find_if_current(connection, conversation, session).await? {
        return Ok(Some(attached));
    }
    let row: Option<ConversationRow> = query_as(ATTACH)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(session.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(ConversationRow::decode).transpose()?)
}

/// Reads the current conversation of a session.
pub(super) async fn current_of_session(
    pool: &PostgresPool,
    session: SessionId,
    user: &UserId,
) -> Result<Option<Conversation>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let found = find_current(&mut connection, session, user).await;
    connection.release(found).await
}

/// Reads a page of a user's conversations.
pub(super) async fn list(
    pool: &PostgresPool,
    query: &ConversationQuery,
) -> Result<ConversationPage, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let page = read_page(&mut connection, query).await;
    connection.release(page).await
}

/// Changes the title or the metadata of a conversation.
pub(super) async fn update(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    changes: &ConversationChanges,
    at: DateTime<Utc>,
) -> Result<Conversation, OperationError> {
    let ConversationChanges { title, metadata } = changes;
    if title.is_none() && metadata.is_none() {
        return get(pool, conversation).await;
    }
    let mut connection = PooledConnection::acquire(pool).await?;
    let row: Result<Option<ConversationRow>, OperationError> = query_as(UPDATE)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(title.is_some())
        .bind(title.as_ref().and_then(Option::as_ref).map(Title::as_str))
        .bind(metadata.is_some())
        .bind(
            metadata
                .as_ref()
                .and_then(Option::as_ref)
                .map(metadata_json::bindable),
        )
        .bind(at)
        .fetch_optional(&mut *connection)
        .await
        .map_err(OperationError::from);
    let row = connection.release(row).await?.ok_or(StoreError::NotFound)?;
    Ok(row.decode()?)
}
