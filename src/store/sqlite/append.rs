use sqlx::{SqliteConnection, query, query_as};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    SqlitePool,
    columns::{Insertion, insert, insertion_into},
    connection::{self, Micros},
    conversations, history,
};
use crate::{
    domain::{Conversation, Title},
    store::{
        Append, Appended,
        operation_error::OperationError,
        replay::{self, IdConflict, RequestEntry, replays},
    },
};

replays!(SqliteConnection, Uuid::hyphenated, Micros);

const ADVANCE: &str = "
UPDATE conversations
SET last_seq = $2,
    updated_at = max(updated_at, $3),
    activity = $4,
    title = coalesce(title, $5),
    last_session_id = coalesce($6, last_session_id),
    session_attached = CASE WHEN $6 IS NULL THEN session_attached ELSE $4 END,
    title_seq = CASE WHEN title IS NULL AND $5 IS NOT NULL THEN last_seq + $7 ELSE title_seq END,
    uncompacted_tokens = uncompacted_tokens + $8,
    has_pinned = has_pinned OR $9
WHERE id = $1";

const INTO_STORE: Insertion = insertion_into!("main");

const FIND_MESSAGE: &str = "SELECT m.conversation_id, m.seq FROM messages m WHERE m.id = $1";

/// Saves a turn, or finds its earlier save. The transaction holds the write lock, so that its
/// checks are still valid when it writes.
pub(super) async fn append(
    writer: &SqlitePool,
    append: &Append,
) -> Result<Appended, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let appended = replay_or_save(&mut transaction, append).await;
    connection::end(transaction, appended).await
}

async fn replay_or_save(
    connection: &mut SqliteConnection,
    append: &Append,
) -> Result<Appended, OperationError> {
    let conversation = conversations::get_in(connection, &append.conversation).await?;
    match find_replay(connection, append, &conversation).await? {
        Some(replayed) => Ok(replayed),
        None => save(connection, append, conversation).await,
    }
}

async fn save(
    connection: &mut SqliteConnection,
    append: &Append,
    conversation: Conversation,
) -> Result<Appended, OperationError> {
    let (id, at) = (conversation.id, Micros::from(append.at));
    let first_seq = conversation.last_seq + 1;
    let mut last_seq = conversation.last_seq;
    for message in &append.messages {
        last_seq += 1;
        insert(connection, INTO_STORE, id, last_seq, message, at).await?;
    }
    if let Some(request) = &append.request {
        let entry = RequestEntry {
            request,
            first_seq,
            last_seq,
            removed: None,
            at: append.at,
        };
        insert_request(connection, id, &entry).await?;
    }
    let activity = connection::next_activity(connection).await?;
    let session = append.session_id.map(|id| id.as_uuid().hyphenated());
    let title = append.title.as_ref();
    query(ADVANCE)
        .bind(id.as_uuid().hyphenated())
        .bind(last_seq)
        .bind(at)
        .bind(activity)
        .bind(title.map(|(title, _)| Title::as_str(title)))
        .bind(session)
        .bind(title.and_then(|(_, index)| i64::try_from(index + 1).ok()))
        .bind(append.tokens())
        .bind(append.has_pinned())
        .execute(connection)
        .await?;
    Ok(Appended::Saved {
        owner: conversation.user_id,
        first_seq,
        uncompacted_tokens: conversation.uncompacted_tokens + append.tokens(),
    })
}

/// Returns the conversations and numbers of the messages with these ids, in ascending order of
/// the numbers.
async fn find_messages(
    connection: &mut SqliteConnection,
    ids: Vec<Uuid>,
) -> Result<Vec<(Uuid, i64)>, OperationError> {
    let mut found = Vec::new();
    for id in ids {
        let message: Option<(Hyphenated, i64)> = query_as(FIND_MESSAGE)
            .bind(id.hyphenated())
            .fetch_optional(&mut *connection)
            .await?;
        found.extend(message.map(|(conversation, seq)| (conversation.into_uuid(), seq)));
    }
    found.sort_unstable_by_key(|(_, seq)| *seq);
    Ok(found)
}
