use sqlx::{SqliteConnection, query, query_as, query_scalar, types::Json};
use uuid::fmt::Hyphenated;

use super::{
    Pool,
    connection::{self, Micros},
    conversations, history, sql,
};
use crate::{
    domain::{Conversation, ConversationId, Message, NewMessage, Title},
    store::{
        Append, Appended, Request, Reused, StoreError,
        failure::OperationError,
        replay::{self, IdConflict},
        rows::RequestRow,
    },
};

const ADVANCE: &str = "
UPDATE conversations
SET last_seq = $2,
    updated_at = max(updated_at, $3),
    activity = $4,
    title = coalesce(title, $5),
    last_session_id = coalesce($6, last_session_id),
    session_attached = CASE WHEN $6 IS NULL THEN session_attached ELSE $4 END
WHERE id = $1";

const FOREIGN_SESSION: &str = "
SELECT EXISTS (SELECT 1 FROM conversations WHERE last_session_id = $1 AND user_id <> $2)";

/// Where messages are kept: how one is put into a schema's tables.
#[derive(Clone, Copy)]
pub(super) struct Insertion {
    message: &'static str,
    context: &'static str,
}

macro_rules! insertion_into {
    ($schema:literal) => {
        $crate::store::sqlite::append::Insertion::new(
            concat!(
                "INSERT INTO ",
                $schema,
                ".messages (conversation_id, seq, id, role, content, tokens_used, latency_ms, \
                 created_at, metadata) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            ),
            concat!(
                "INSERT INTO ",
                $schema,
                ".message_contexts (conversation_id, seq, position, doc_id, content, score, \
                 metadata) VALUES ($1, $2, $3, $4, $5, $6, $7)"
            ),
        )
    };
}
pub(super) use insertion_into;

impl Insertion {
    pub(super) const fn new(message: &'static str, context: &'static str) -> Self {
        Self { message, context }
    }
}

const INTO_STORE: Insertion = insertion_into!("main");

const NOTE: &str = "
INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)";

const MESSAGE_PLACE: &str = "SELECT m.conversation_id, m.seq FROM messages m WHERE m.id = $1";

/// An entry of the ledger of idempotency keys.
pub(super) struct Note<'a> {
    pub(super) request: &'a Request,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) removed: Option<i64>,
    pub(super) at: Micros,
}

/// Saves a turn. The transaction has the file to itself, so that what it looks
/// at stays true until it has written.
pub(super) async fn append(writer: &Pool, append: &Append) -> Result<Appended, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let conversation = conversations::find_one(&mut transaction, &append.conversation).await?;
    if let Some(replayed) = known(&mut transaction, append, &conversation).await? {
        return Ok(replayed);
    }
    let saved = save(&mut transaction, append, conversation).await?;
    connection::commit(transaction).await?;
    Ok(saved)
}

/// The outcome of the same save before, or why this one is refused.
async fn known(
    connection: &mut SqliteConnection,
    append: &Append,
    conversation: &Conversation,
) -> Result<Option<Appended>, OperationError> {
    let id = conversation.id;
    if let Some(request) = &append.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        replay::same_request(&known, request)?;
        let (first_seq, last_seq) = (known.first_seq, known.last_seq);
        let messages = history::span(connection, id, first_seq, last_seq, false).await?;
        return Ok(Some(Appended::Replayed { last_seq, messages }));
    }
    let (standing, messages) = match_ids(connection, append).await?;
    if standing == IdConflict::Replay {
        return Ok(Some(replay::of_batch(messages)));
    }
    replay::ends_at(append.expected_last_seq, conversation.last_seq)?;
    match standing {
        IdConflict::Reused => Err(StoreError::AlreadyExists(Reused::MessageId).into()),
        IdConflict::Free | IdConflict::Replay => Ok(None),
    }
}

async fn save(
    connection: &mut SqliteConnection,
    append: &Append,
    conversation: Conversation,
) -> Result<Appended, OperationError> {
    let at = Micros::from(append.at);
    let first_seq = conversation.last_seq + 1;
    let mut last_seq = conversation.last_seq;
    for message in &append.messages {
        last_seq += 1;
        insert(
            connection,
            INTO_STORE,
            conversation.id,
            last_seq,
            message,
            at,
        )
        .await?;
    }
    if let Some(request) = &append.request {
        let note = Note {
            request,
            first_seq,
            last_seq,
            removed: None,
            at,
        };
        add_note(connection, conversation.id, &note).await?;
    }
    let activity = connection::next_activity(connection).await?;
    let session = own_session(connection, append, &conversation).await?;
    query(ADVANCE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(last_seq)
        .bind(at)
        .bind(activity)
        .bind(append.title.as_ref().map(Title::as_str))
        .bind(session)
        .execute(connection)
        .await?;
    Ok(Appended::Saved {
        owner: conversation.user_id,
        first_seq,
    })
}

/// The session to note on the conversation, unless it was last on another user's.
async fn own_session(
    connection: &mut SqliteConnection,
    append: &Append,
    conversation: &Conversation,
) -> Result<Option<Hyphenated>, OperationError> {
    let Some(session) = append.session_id.map(|id| id.as_uuid().hyphenated()) else {
        return Ok(None);
    };
    let foreign: bool = query_scalar(FOREIGN_SESSION)
        .bind(session)
        .bind(conversation.user_id.as_str())
        .fetch_one(connection)
        .await?;
    Ok((!foreign).then_some(session))
}

/// Inserts a message with its contexts; `at` is its time if it has none.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    into: Insertion,
    conversation: ConversationId,
    seq: i64,
    message: &NewMessage,
    at: Micros,
) -> Result<(), OperationError> {
    query(into.message)
        .bind(conversation.as_uuid().hyphenated())
        .bind(seq)
        .bind(message.id.as_uuid().hyphenated())
        .bind(message.role.as_str())
        .bind(message.content.as_str())
        .bind(message.tokens_used)
        .bind(message.latency_ms)
        .bind(message.created_at.map_or(at, Micros::from))
        .bind(message.metadata.as_ref().map(Json))
        .execute(&mut *connection)
        .await?;
    for (position, context) in (0_i64..).zip(&message.contexts) {
        query(into.context)
            .bind(conversation.as_uuid().hyphenated())
            .bind(seq)
            .bind(position)
            .bind(context.doc_id.as_str())
            .bind(context.content.as_str())
            .bind(context.score)
            .bind(context.metadata.as_ref().map(Json))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Reads what is known of an idempotency key.
pub(super) async fn find_request(
    connection: &mut SqliteConnection,
    conversation: ConversationId,
    request: &Request,
) -> Result<Option<RequestRow>, OperationError> {
    Ok(query_as(sql::REQUEST)
        .bind(conversation.as_uuid().hyphenated())
        .bind(request.id.as_str())
        .fetch_optional(connection)
        .await?)
}

/// Remembers what was done under an idempotency key.
pub(super) async fn add_note(
    connection: &mut SqliteConnection,
    conversation: ConversationId,
    note: &Note<'_>,
) -> Result<(), OperationError> {
    query(NOTE)
        .bind(conversation.as_uuid().hyphenated())
        .bind(note.request.id.as_str())
        .bind(note.request.digest.as_bytes())
        .bind(note.first_seq)
        .bind(note.last_seq)
        .bind(note.removed)
        .bind(note.at)
        .execute(connection)
        .await?;
    Ok(())
}

/// How the batch's chosen ids stand, and the messages that they name here.
async fn match_ids(
    connection: &mut SqliteConnection,
    append: &Append,
) -> Result<(IdConflict, Vec<Message>), OperationError> {
    let batch = &append.messages;
    let id = append.conversation.id;
    let mut taken = false;
    let mut here = Vec::new();
    for message in batch.iter().filter(|message| message.id_chosen) {
        let place: Option<(Hyphenated, i64)> = query_as(MESSAGE_PLACE)
            .bind(message.id.as_uuid().hyphenated())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some((conversation, seq)) = place {
            taken = true;
            if conversation.into_uuid() == id.as_uuid() {
                here.push(seq);
            }
        }
    }
    here.sort_unstable();
    let messages = match replay::span(batch, &here) {
        Some((first, last)) => history::span(connection, id, first, last, true).await?,
        None => Vec::new(),
    };
    let standing = replay::standing(batch, &messages, taken, false);
    Ok((standing, messages))
}
