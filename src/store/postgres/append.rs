use sqlx::{PgConnection, query_as};
use uuid::Uuid;

use super::{
    Pool,
    columns::{Contexts, Messages},
    connection::{Lease, Losses},
    conversations, history, sql,
};
use crate::{
    domain::{ConversationId, Message, RequestId, SessionId, Title, UserId},
    store::{
        Append, Appended, Request, Reused, StoreError,
        failure::{ErrorKind, Failure, OperationError},
        replay::{self, IdConflict},
        rows::RequestRow,
    },
};

/// The whole save. The update locks the conversation's row, so that numbers are
/// given in commit order, and what follows hangs on the row that it returns.
///
/// All parts see one snapshot, and after a wait for the lock only the
/// conversation's own row is looked at anew. The look into the ledger is
/// therefore no more than a shortcut; the ledger's primary key decides. A session
/// that was last on another user's conversation is not noted on this one.
const APPEND: &str = "
WITH saved AS (
    UPDATE conversations c
    SET last_seq = c.last_seq + $3,
        updated_at = greatest(c.updated_at, $4),
        activity = nextval('activity_order'),
        title = coalesce(c.title, $5),
        last_session_id = coalesce(own.session_id, c.last_session_id),
        session_attached = CASE WHEN own.session_id IS NULL THEN c.session_attached
                                ELSE nextval('activity_order') END
    FROM (SELECT CASE WHEN $6 IS NOT NULL AND NOT EXISTS (
                     SELECT 1 FROM conversations o
                     WHERE o.last_session_id = $6
                       AND o.user_id <> (SELECT s.user_id FROM conversations s WHERE s.id = $1))
                 THEN $6 END AS session_id) own
    WHERE c.id = $1
      AND ($2 IS NULL OR c.user_id = $2)
      AND ($7 IS NULL OR c.last_seq = $7)
      AND NOT EXISTS (SELECT 1 FROM requests r
                      WHERE r.conversation_id = $1 AND r.request_id = $8)
    RETURNING c.id, c.user_id, c.last_seq - $3 AS before_seq
), new_messages AS (
    INSERT INTO messages (conversation_id, seq, id, role, content, tokens_used, latency_ms,
                          created_at, metadata)
    SELECT s.id, s.before_seq + m.place, m.id, m.role, m.content, m.tokens_used, m.latency_ms,
           m.created_at, m.metadata
    FROM saved s, unnest($10, $11, $12, $13, $14, $15, $16) WITH ORDINALITY
         AS m (id, role, content, tokens_used, latency_ms, created_at, metadata, place)
), new_contexts AS (
    INSERT INTO message_contexts (conversation_id, seq, position, doc_id, content, score, metadata)
    SELECT s.id, s.before_seq + x.place, x.position, x.doc_id, x.content, x.score, x.metadata
    FROM saved s, unnest($17, $18, $19, $20, $21, $22)
         AS x (place, position, doc_id, content, score, metadata)
), new_request AS (
    INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, created_at)
    SELECT s.id, $8, $9, s.before_seq + 1, s.before_seq + $3, $4
    FROM saved s WHERE $8 IS NOT NULL
)
SELECT s.user_id, s.before_seq + 1 AS first_seq FROM saved s";

const MESSAGE_PLACES: &str =
    "SELECT m.conversation_id, m.seq FROM messages m WHERE m.id = ANY($1) ORDER BY m.seq";

/// Saves a turn. `after_loss` says that an earlier attempt at this very save may
/// have been carried out.
pub(super) async fn append(
    pool: &Pool,
    losses: &Losses,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    let mut lease = if append.is_repeatable() {
        Lease::take(pool).await?
    } else {
        Lease::take_tested(pool, losses).await?
    };
    let outcome = save_or_say_why(&mut lease, append, after_loss).await;
    lease.release(outcome)
}

async fn save_or_say_why(
    connection: &mut PgConnection,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    match save(connection, append).await {
        Ok(Some(saved)) => return Ok(saved),
        Ok(None) => {}
        Err(failure) if failure.class == ErrorKind::Taken => {}
        Err(failure) => return Err(failure.into()),
    }
    // From here on nothing is written: a lost connection leaves no doubt.
    why_not(connection, append, after_loss)
        .await
        .map_err(|trouble| match trouble {
            OperationError::Failed(Failure {
                class: ErrorKind::Lost,
                cause,
            }) => Failure {
                class: ErrorKind::Retry,
                cause,
            }
            .into(),
            other => other,
        })
}

async fn save(connection: &mut PgConnection, append: &Append) -> Result<Option<Appended>, Failure> {
    let messages = Messages::of(append.messages.iter(), append.at);
    let contexts = Contexts::of((1..).zip(&append.messages));
    let request = append.request.as_ref();
    let row: Option<(String, i64)> = query_as(APPEND)
        .bind(append.conversation.id.as_uuid())
        .bind(append.conversation.user_id.as_ref().map(UserId::as_str))
        .bind(i64::try_from(append.messages.len()).unwrap_or(i64::MAX))
        .bind(append.at)
        .bind(append.title.as_ref().map(Title::as_str))
        .bind(append.session_id.map(SessionId::as_uuid))
        .bind(append.expected_last_seq)
        .bind(request.map(|request| RequestId::as_str(&request.id)))
        .bind(request.map(|request| request.digest.as_bytes()))
        .bind(messages.ids)
        .bind(messages.roles)
        .bind(messages.contents)
        .bind(messages.tokens_used)
        .bind(messages.latency_ms)
        .bind(messages.created_at)
        .bind(messages.metadata)
        .bind(contexts.places)
        .bind(contexts.positions)
        .bind(contexts.doc_ids)
        .bind(contexts.contents)
        .bind(contexts.scores)
        .bind(contexts.metadata)
        .fetch_optional(connection)
        .await
        .map_err(Failure::from)?;
    let Some((owner, first_seq)) = row else {
        return Ok(None);
    };
    let owner = UserId::parse(owner)
        .map_err(|_| Failure::new(ErrorKind::Internal, "the stored user_id is not valid"))?;
    Ok(Some(Appended::Saved { owner, first_seq }))
}

/// Finds out why nothing was saved, in the order that [`Append`] gives.
async fn why_not(
    connection: &mut PgConnection,
    append: &Append,
    after_loss: bool,
) -> Result<Appended, OperationError> {
    let conversation = conversations::find(connection, &append.conversation)
        .await?
        .ok_or(StoreError::NotFound)?;
    if after_loss && let Some(first_seq) = saved_after_all(connection, append).await? {
        let owner = conversation.user_id;
        return Ok(Appended::Saved { owner, first_seq });
    }
    if let Some(request) = &append.request
        && let Some(known) = find_request(connection, conversation.id, request).await?
    {
        replay::same_request(&known, request)?;
        let messages = history::span(
            connection,
            conversation.id,
            known.first_seq,
            known.last_seq,
            false,
        )
        .await?;
        return Ok(Appended::Replayed {
            last_seq: known.last_seq,
            messages,
        });
    }
    let (standing, messages) = match_ids(connection, append, false).await?;
    if standing == IdConflict::Replay {
        return Ok(replay::of_batch(messages));
    }
    replay::ends_at(append.expected_last_seq, conversation.last_seq)?;
    if standing == IdConflict::Reused {
        return Err(StoreError::AlreadyExists(Reused::MessageId).into());
    }
    // What stood in the way is gone by now.
    Err(Failure::new(ErrorKind::Retry, "the reason for a refusal has gone").into())
}

/// Whether the attempt that was lost had saved the turn. An id that was generated
/// for it stands nowhere else.
async fn saved_after_all(
    connection: &mut PgConnection,
    append: &Append,
) -> Result<Option<i64>, OperationError> {
    if append.messages.iter().all(|message| message.id_chosen) {
        return Ok(None);
    }
    let (standing, messages) = match_ids(connection, append, true).await?;
    let first = messages.first().map(|message| message.seq);
    Ok(first.filter(|_| standing == IdConflict::Replay))
}

/// Reads what is known of an idempotency key.
pub(super) async fn find_request(
    connection: &mut PgConnection,
    conversation: ConversationId,
    request: &Request,
) -> Result<Option<RequestRow>, OperationError> {
    Ok(query_as(sql::REQUEST)
        .bind(conversation.as_uuid())
        .bind(request.id.as_str())
        .fetch_optional(connection)
        .await?)
}

/// How the batch's ids stand, generated ones too where those count, and the
/// messages that they name here.
async fn match_ids(
    connection: &mut PgConnection,
    append: &Append,
    all_count: bool,
) -> Result<(IdConflict, Vec<Message>), OperationError> {
    let batch = &append.messages;
    let ids: Vec<Uuid> = batch
        .iter()
        .filter(|message| all_count || message.id_chosen)
        .map(|message| message.id.as_uuid())
        .collect();
    let places: Vec<(Uuid, i64)> = query_as(MESSAGE_PLACES)
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let id = append.conversation.id;
    let here: Vec<i64> = places
        .iter()
        .filter(|(conversation, _)| *conversation == id.as_uuid())
        .map(|(_, seq)| *seq)
        .collect();
    let messages = match replay::span(batch, &here) {
        Some((first, last)) => history::span(connection, id, first, last, true).await?,
        None => Vec::new(),
    };
    let standing = replay::standing(batch, &messages, !places.is_empty(), all_count);
    Ok((standing, messages))
}
