use chrono::{DateTime, Utc};
use sqlx::{Postgres, postgres::PgArguments, query::QueryAs, query_as};
use uuid::Uuid;

use super::{
    PostgresPool,
    columns::{
        BlobColumns, ContextColumns, MessageColumns, bind_blobs, bind_contexts, bind_messages,
    },
    connection::PooledConnection,
    conversations,
    documents::{DocumentColumns, bind_documents},
    history,
    invalidations::{record_after, record_statement},
    server_state::ServerState,
    store_connection::StoreConnection,
};
use crate::{
    domain::{Conversation, ConversationId, Message, RequestId, SessionId, Title, UserId},
    store::{
        Append, Appended, StoreError,
        operation_error::{BackendError, ErrorKind, OperationError},
        replay::{self, IdConflict, replays},
    },
    text_analysis::Languages,
};

replays!(StoreConnection, std::convert::identity, DateTime<Utc>);

/// Statement that saves a turn. The UPDATE locks the conversation's row, so that numbers are assigned
/// in commit order, and everything else depends on the row that it returns. `$conversation` is the id
/// of that row, `$before` begins the statement, and `$attachments` saves contexts and blobs.
///
/// All parts see one snapshot: after a wait for the lock, PostgreSQL re-evaluates only the
/// conversation's own row. The check of the requests ledger is therefore only an optimization,
/// and the primary key of the ledger is what rejects a duplicate. A unique index rejects ids of messages
/// that are stored under the id of the conversation; those that it inherits never become more.
macro_rules! append_statement {
    ($before:literal, $conversation:literal, $attachments:expr) => {
        concat!(
            "
WITH ",
            $before,
            "saved AS (
    UPDATE conversations c
    SET last_seq = c.last_seq + $3,
        updated_at = greatest(c.updated_at, $4),
        activity = nextval('activity_order'),
        title = coalesce(c.title, $5),
        title_seq = CASE WHEN c.title IS NULL AND $5 IS NOT NULL THEN c.last_seq + $10
                         ELSE c.title_seq END,
        uncompacted_tokens = c.uncompacted_tokens + $11,
        has_pinned = c.has_pinned OR $12,
        last_session_id = coalesce($6, c.last_session_id),
        session_attached = CASE WHEN $6 IS NULL THEN c.session_attached
                                ELSE nextval('activity_order') END
    WHERE c.id = ",
            $conversation,
            "
      AND ($2 IS NULL OR c.user_id = $2)
      AND ($7 IS NULL OR c.last_seq = $7)
      AND NOT EXISTS (SELECT 1 FROM requests r
                      WHERE r.conversation_id = $1 AND r.request_id = $8)
      AND (c.own_after = 0 OR NOT EXISTS (SELECT 1 FROM inherited_messages(c.id, $22)))
    RETURNING c.id, c.user_id, c.dept_id, c.last_seq - $3 AS before_seq, c.uncompacted_tokens
), new_messages AS (
    INSERT INTO messages (conversation_id, seq, ",
            $crate::store::postgres::columns::message_values!(""),
            ")
    SELECT s.id, s.before_seq + m.number, ",
            $crate::store::postgres::columns::message_values!("m."),
            "
    FROM saved s, unnest(",
            $crate::store::postgres::columns::placeholders!(append messages),
            ") WITH ORDINALITY AS m (",
            $crate::store::postgres::columns::message_values!(""),
            ", number)
), ",
            $attachments,
            "new_documents AS (
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
    SELECT s.id, s.before_seq + d.number, s.user_id, s.dept_id, d.role, $35, d.words
    FROM saved s, unnest($36, $37, $38) AS d (number, role, words)
    ORDER BY d.number
), new_request AS (
    INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, created_at)
    SELECT s.id, $8, $9, s.before_seq + 1, s.before_seq + $3, $4
    FROM saved s WHERE $8 IS NOT NULL
), pending_invalidation AS (
    ",
            $crate::store::postgres::invalidations::record_saved!("$34"),
            "
)
SELECT s.user_id, s.before_seq + 1 AS first_seq, s.uncompacted_tokens FROM saved s"
        )
    };
}
pub(super) use append_statement;

/// Saves the contexts and blobs of the messages of [`append_statement`].
macro_rules! attachments {
    () => {
        concat!(
            "new_contexts AS (
    INSERT INTO message_contexts (conversation_id, seq, position, ",
            $crate::store::sql::context_columns!(""),
            ")
    SELECT s.id, s.before_seq + x.number, x.position, ",
            $crate::store::sql::context_columns!("x."),
            "
    FROM saved s, unnest(",
            $crate::store::postgres::columns::placeholders!(append contexts),
            ") AS x (number, position, ",
            $crate::store::sql::context_columns!(""),
            ")
), new_blobs AS (
    INSERT INTO message_blobs (conversation_id, seq, position, data)
    SELECT s.id, s.before_seq + b.number, b.position, b.data
    FROM saved s, unnest(",
            $crate::store::postgres::columns::placeholders!(append blobs),
            ") AS b (number, position, data)
), "
        )
    };
}
pub(super) use attachments;

/// Saves a turn after a wait for the lock of its conversation.
const APPEND: &str = append_statement!("", "$1", attachments!());

/// Saves a turn without contexts and blobs, unless its conversation is locked.
const APPEND_UNLOCKED: &str = append_statement!(
    "",
    "(SELECT l.id FROM conversations l WHERE l.id = $1 FOR NO KEY UPDATE SKIP LOCKED)",
    ""
);

/// Parameters: $1 conversation, $2 ids.
const FIND_MESSAGES: &str = "SELECT m.conversation_id, m.seq FROM unnest($2) AS i (id) \
      CROSS JOIN LATERAL (SELECT m.conversation_id, m.seq FROM messages m \
        WHERE m.conversation_id = $1 AND m.id = i.id OFFSET 0) AS m UNION ALL \
    SELECT m.conversation_id, m.seq FROM inherited_messages($1, $2) AS m ORDER BY seq";

/// Saves a turn, or finds its earlier save. `after_loss` means that an earlier attempt of
/// this call may have been executed.
pub(super) async fn append(
    pool: &PostgresPool,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    let mut connection = if append.is_repeatable() {
        PooledConnection::acquire(pool).await?
    } else {
        PooledConnection::acquire_tested(pool).await?
    };
    let appended = save_or_replay(
        &mut connection,
        &pool.server,
        pool.languages,
        append,
        after_loss,
    )
    .await;
    let record = || {
        let after = record_after(append.invalidation, &pool.server);
        record_statement([append.conversation.id], after)
    };
    connection.release_with(appended, record).await
}

async fn save_or_replay(
    connection: &mut StoreConnection,
    server: &ServerState,
    languages: Languages,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    match save(connection, Some(server), languages, append, APPEND).await {
        Ok(Some(saved)) => return Ok(saved),
        Ok(None) => {}
        Err(error) if error.kind == ErrorKind::UniqueViolation => {
            connection.continue_after_error().await?;
        }
        Err(error) => return Err(error.into()),
    }
    // Nothing is written from here on, so that the outcome is known even if the connection is
    // lost.
    find_earlier_save(connection, append, after_loss)
        .await
        .map_err(|error| error.replace_connection_lost(ErrorKind::Retryable))
}

/// Saves a turn in a transaction that has locked the conversation. The ids of its messages are not
/// in use, and the transaction records the pending invalidation.
pub(super) async fn append_in(
    connection: &mut StoreConnection,
    languages: Languages,
    append: &Append,
) -> Result<Appended, OperationError> {
    let saved = save(connection, None, languages, append, APPEND).await?;
    Ok(saved.ok_or(StoreError::NotFound)?)
}

/// Saves a turn without contexts and blobs. `None` if a check fails or the conversation is locked.
pub(super) async fn append_unlocked(
    connection: &mut StoreConnection,
    server: &ServerState,
    languages: Languages,
    append: &Append,
) -> Result<Option<Appended>, BackendError> {
    save(connection, Some(server), languages, append, APPEND_UNLOCKED).await
}

/// Executes the save with one of the statements. `None` if a condition of the statement is not met.
async fn save(
    connection: &mut StoreConnection,
    server: Option<&ServerState>,
    languages: Languages,
    append: &Append,
    statement: &'static str,
) -> Result<Option<Appended>, BackendError> {
    let record_after = server.and_then(|server| record_after(append.invalidation, server));
    let query = bind_append(query_as(statement), append, languages, record_after);
    saved(query.fetch_optional(connection).await?)
}

/// Row of a saved turn: owner, number of its first message, tokens that are not compacted.
pub(super) type SavedRow = (String, i64, i64);

/// Binds the parameters of [`append_statement`].
pub(super) fn bind_append<'q>(
    query: QueryAs<'q, Postgres, SavedRow, PgArguments>,
    append: &'q Append,
    languages: Languages,
    record_after: Option<DateTime<Utc>>,
) -> QueryAs<'q, Postgres, SavedRow, PgArguments> {
    let messages = MessageColumns::new(append.messages.iter(), append.at);
    let contexts = ContextColumns::new((1..).zip(&append.messages));
    let blobs = BlobColumns::new((1..).zip(&append.messages));
    let request = append.request.as_ref();
    let title = append.title.as_ref();
    let query = query
        .bind(append.conversation.id.as_uuid())
        .bind(append.conversation.user_id.as_ref().map(UserId::as_str))
        .bind(i64::try_from(append.messages.len()).unwrap_or(i64::MAX))
        .bind(append.at)
        .bind(title.map(|(title, _)| Title::as_str(title)))
        .bind(append.session_id.map(SessionId::as_uuid))
        .bind(append.expected_last_seq)
        .bind(request.map(|request| RequestId::as_str(&request.id)))
        .bind(request.map(|request| request.digest.as_bytes()))
        .bind(title.and_then(|(_, index)| i64::try_from(index + 1).ok()))
        .bind(append.tokens())
        .bind(append.has_pinned());
    let documents = DocumentColumns::new((1..).zip(&append.messages), languages);
    let query = bind_messages!(
        bind_blobs!(bind_contexts!(query, contexts), blobs),
        messages
    )
    .bind(record_after);
    bind_documents!(query, documents)
}

/// Outcome of the statement; `None` if it has returned no row.
pub(super) fn saved(row: Option<SavedRow>) -> Result<Option<Appended>, BackendError> {
    let Some((owner, first_seq, uncompacted_tokens)) = row else {
        return Ok(None);
    };
    let owner = UserId::parse(owner)
        .map_err(|_| BackendError::new(ErrorKind::Internal, "the stored user_id is not valid"))?;
    Ok(Some(Appended::Saved {
        owner,
        first_seq,
        uncompacted_tokens,
    }))
}

/// Returns the earlier save of a batch that this call did not save, or the reason why it was
/// rejected, in the order of the checks that [`Append`] lists.
async fn find_earlier_save(
    connection: &mut StoreConnection,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    let conversation = conversations::find(connection, &append.conversation)
        .await?
        .ok_or(StoreError::NotFound)?;
    if after_loss && let Some(first_seq) = find_lost_save(connection, append, &conversation).await?
    {
        return Ok(Appended::Saved {
            owner: conversation.user_id,
            first_seq,
            uncompacted_tokens: conversation.uncompacted_tokens,
        });
    }
    if let Some(replayed) = find_replay(connection, append, &conversation).await? {
        return Ok(replayed);
    }
    let cause = "the save conflicted with another write that no longer exists";
    Err(BackendError::new(ErrorKind::Retryable, cause).into())
}

/// Returns the first number of the turn if the attempt whose connection was lost has saved it.
async fn find_lost_save(
    connection: &mut StoreConnection,
    append: &Append,
    conversation: &Conversation,
) -> Result<Option<i64>, OperationError> {
    let (conflict, messages) = compare_ids(connection, append, true).await?;
    let first = messages.first().map(|message| message.seq);
    let is_own = conflict == IdConflict::Replay && is_of_this_call(append, &messages, conversation);
    Ok(first.filter(|_| is_own))
}

/// Returns whether a stored turn was saved by this call and not by an earlier one with the same
/// content. An id that was generated for this turn is not used by any other turn. If the caller
/// chose all ids, the time of the save, which each call reads from the clock, identifies the call.
fn is_of_this_call(append: &Append, stored: &[Message], conversation: &Conversation) -> bool {
    let micros = append.at.timestamp_micros();
    let mut messages = append.messages.iter().zip(stored);
    append.messages.iter().any(|message| !message.id_chosen)
        || conversation.updated_at.timestamp_micros() == micros
        || messages.any(|(new, stored)| {
            new.created_at.is_none() && stored.created_at.timestamp_micros() == micros
        })
}

/// Returns the messages with these ids that are stored under the id of the conversation or that it
/// contains: the ids that they are stored under, and their numbers, in ascending order.
async fn find_messages(
    connection: &mut StoreConnection,
    conversation: ConversationId,
    ids: Vec<Uuid>,
) -> Result<Vec<(Uuid, i64)>, OperationError> {
    Ok(query_as(FIND_MESSAGES)
        .bind(conversation.as_uuid())
        .bind(ids)
        .fetch_all(connection)
        .await?)
}
