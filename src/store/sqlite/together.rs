//! Two queries that save the turns of several conversations, whatever their number. Queries for each
//! turn would each pass between two threads.

use std::fmt::Write as _;

use serde::Serialize;
use sqlx::{SqliteConnection, query, query_scalar, types::Json};

use super::{
    append::{State, StateRow, chosen_ids, set_conversation},
    columns::{has_further_rows, insert_message},
    connection::Micros,
};
use crate::{
    domain::{AuthorName, NewMessage, Title, UserId},
    store::{
        Append, Appended,
        group_commit::GroupedSave,
        metadata_json,
        operation_error::{BackendError, ErrorKind, OperationError},
    },
};

/// Reads what saves need of their conversations, as a JSON array of their positions and
/// [`StateRow`]s. A save that may be a retry, or uses an id that is in use, is missing.
/// Parameter: $1 JSON array of [`StateQuery`]s.
const STATES: &str = "
SELECT json_group_array(json_array(s.key, json_array(c.last_seq, c.user_id, c.uncompacted_tokens)))
FROM jsonb_each($1) s
    CROSS JOIN conversations c ON c.id = s.value ->> '$.conversation_id'
WHERE (s.value ->> '$.user_id' IS NULL OR c.user_id = s.value ->> '$.user_id')
  AND NOT EXISTS (SELECT 1 FROM requests r
                  WHERE r.conversation_id = c.id AND r.request_id = s.value ->> '$.request_id')
  AND NOT EXISTS (SELECT 1 FROM json_each(s.value, '$.chosen_ids') i
                  CROSS JOIN messages m WHERE m.id = i.value)";

/// Saves turns. Only the insertion of the messages can violate the uniqueness of a value, and then
/// nothing is written. The parameters have names (`$1`, not `?1`), because the driver confuses those
/// without a name if a query has several statements. Parameters: $1 JSON array of [`MessageRow`]s,
/// $2 JSON array of [`TurnRow`]s, $3 number of the turns.
const SAVE: &str = concat!(
    insert_message!("main"),
    "
SELECT m.value ->> '$.conversation_id', m.value ->> '$.seq', m.value ->> '$.id',
    m.value ->> '$.created_at', m.value ->> '$.metadata', m.value ->> '$.role',
    m.value ->> '$.content', m.value ->> '$.tokens_used', m.value ->> '$.latency_ms',
    m.value ->> '$.name', m.value ->> '$.parts', m.value ->> '$.token_count',
    m.value ->> '$.pinned', m.value ->> '$.redacted'
FROM jsonb_each($1) m;
INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at)
SELECT t.value ->> '$.conversation_id', t.value ->> '$.request_id',
    unhex(t.value ->> '$.digest'), t.value ->> '$.first_seq', t.value ->> '$.last_seq', NULL,
    t.value ->> '$.at'
FROM jsonb_each($2) t WHERE t.value ->> '$.request_id' IS NOT NULL;
UPDATE activity_order SET last = last + $3 WHERE only = 1;
UPDATE conversations SET ",
    set_conversation!(
        last_seq: "t.value ->> '$.last_seq'",
        at: "t.value ->> '$.at'",
        activity: "(SELECT o.last FROM activity_order o WHERE o.only = 1) - $3 + 1 + t.key",
        title: "t.value ->> '$.title'",
        title_number: "t.value ->> '$.title_number'",
        session: "t.value ->> '$.session_id'",
        tokens: "t.value ->> '$.tokens'",
        has_pinned: "t.value ->> '$.has_pinned'"
    ),
    "
FROM jsonb_each($2) t WHERE conversations.id = t.value ->> '$.conversation_id'"
);

/// What [`STATES`] needs of a save.
#[derive(Serialize)]
struct StateQuery<'a> {
    conversation_id: String,
    user_id: Option<&'a str>,
    request_id: Option<&'a str>,
    chosen_ids: Option<Json<Vec<String>>>,
}

/// Row of a message.
#[derive(Serialize)]
struct MessageRow<'a> {
    conversation_id: String,
    seq: i64,
    id: String,
    created_at: Micros,
    /// JSON in a string, which is stored as it is.
    metadata: Option<String>,
    role: &'static str,
    content: &'a str,
    tokens_used: Option<i32>,
    latency_ms: Option<i32>,
    name: Option<&'a str>,
    /// JSON in a string, which is stored as it is.
    parts: Option<String>,
    token_count: Option<i32>,
    pinned: bool,
    redacted: bool,
}

/// What is written of a turn besides its messages.
#[derive(Serialize)]
struct TurnRow<'a> {
    conversation_id: String,
    first_seq: i64,
    last_seq: i64,
    at: Micros,
    title: Option<&'a str>,
    /// Number in the turn, from 1, of the message that the title was derived from.
    title_number: Option<usize>,
    session_id: Option<String>,
    tokens: i64,
    has_pinned: bool,
    request_id: Option<&'a str>,
    /// Digest of the request, in hexadecimal digits.
    digest: Option<String>,
}

/// Saves those turns of different conversations that are certainly new, are not rejected, and have
/// rows in no other tables. Returns their outcomes in the order of the saves, and `None` for each
/// one of which nothing was written. The transaction holds the write lock.
///
/// # Errors
///
/// After an error, the transaction must be rolled back.
pub(super) async fn append_together(
    connection: &mut SqliteConnection,
    saves: &[GroupedSave<'_>],
) -> Result<Vec<Option<Appended>>, OperationError> {
    let none = || vec![None; saves.len()];
    let queries: Vec<_> = saves.iter().map(|save| state_query(save.append)).collect();
    // The statements for one turn take less time.
    if queries.iter().flatten().count() < 2 {
        return Ok(none());
    }
    let states = query_scalar(STATES).bind(Json(queries));
    let Json(states): Json<Vec<(usize, StateRow)>> = states.fetch_one(&mut *connection).await?;
    let new: Vec<_> = states
        .into_iter()
        .filter_map(|(position, row)| {
            let append = saves.get(position)?.append;
            Some((position, append, State::of(append, row)?))
        })
        .collect();
    if new.is_empty() {
        return Ok(none());
    }
    match write(connection, &new).await {
        // An id occurs twice.
        Err(error) if error.kind() == Some(ErrorKind::UniqueViolation) => return Ok(none()),
        written => written?,
    }
    let mut outcomes = none();
    for (position, append, state) in new {
        outcomes[position] = Some(state.saved(append));
    }
    Ok(outcomes)
}

/// Returns what is read for a save. `None` if it has rows in other tables.
fn state_query(append: &Append) -> Option<StateQuery<'_>> {
    if append.messages.iter().any(has_further_rows) {
        return None;
    }
    Some(StateQuery {
        conversation_id: append.conversation.id.to_string(),
        user_id: append.conversation.user_id.as_ref().map(UserId::as_str),
        request_id: append.request.as_ref().map(|request| request.id.as_str()),
        chosen_ids: chosen_ids(append),
    })
}

async fn write(
    connection: &mut SqliteConnection,
    new: &[(usize, &Append, State)],
) -> Result<(), OperationError> {
    let mut messages = Vec::with_capacity(new.len() * 2);
    let mut turns = Vec::with_capacity(new.len());
    for (_, append, state) in new {
        let first_seq = state.first_seq();
        for (seq, message) in (first_seq..).zip(&append.messages) {
            messages.push(message_row(append, seq, message)?);
        }
        turns.push(turn_row(append, first_seq));
    }
    let number = i64::try_from(turns.len()).unwrap_or(i64::MAX);
    query(SAVE)
        .bind(Json(messages))
        .bind(Json(turns))
        .bind(number)
        .execute(connection)
        .await?;
    Ok(())
}

fn message_row<'a>(
    append: &Append,
    seq: i64,
    message: &'a NewMessage,
) -> Result<MessageRow<'a>, OperationError> {
    let metadata = message.metadata.as_ref().map(metadata_json::bindable);
    let parts = (!message.parts.is_empty()).then_some(&message.parts);
    Ok(MessageRow {
        conversation_id: append.conversation.id.to_string(),
        seq,
        id: message.id.to_string(),
        created_at: message.created_at.unwrap_or(append.at).into(),
        metadata: metadata.as_ref().map(to_json).transpose()?,
        role: message.role.as_str(),
        content: message.content.as_str(),
        tokens_used: message.tokens_used,
        latency_ms: message.latency_ms,
        name: message.name.as_ref().map(AuthorName::as_str),
        parts: parts.map(to_json).transpose()?,
        token_count: message.token_count,
        pinned: message.pinned,
        redacted: message.redacted,
    })
}

fn turn_row(append: &Append, first_seq: i64) -> TurnRow<'_> {
    let length = i64::try_from(append.messages.len()).unwrap_or(i64::MAX);
    let title = append.title.as_ref();
    let request = append.request.as_ref();
    TurnRow {
        conversation_id: append.conversation.id.to_string(),
        first_seq,
        last_seq: first_seq + length - 1,
        at: append.at.into(),
        title: title.map(|(title, _)| Title::as_str(title)),
        title_number: title.map(|(_, index)| index + 1),
        session_id: append.session_id.map(|id| id.to_string()),
        tokens: append.tokens(),
        has_pinned: append.has_pinned(),
        request_id: request.map(|request| request.id.as_str()),
        digest: request.map(|request| hexadecimal(request.digest.as_bytes())),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A write to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

fn to_json(value: &impl Serialize) -> Result<String, OperationError> {
    serde_json::to_string(value)
        .map_err(|error| BackendError::new(ErrorKind::Internal, error.to_string()).into())
}
