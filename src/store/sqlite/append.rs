//! Saves of turns: by themselves, or several in one transaction.

use std::{fmt::Write as _, sync::LazyLock};

use sqlx::{Sqlite, SqliteConnection, query, query::Query, query_as, sqlite::SqliteArguments};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    SqlitePool,
    columns::{BOUND_COLUMNS, Insertion, bind_columns, has_further_rows, insert, insertion_into},
    connection::{self, Micros},
    conversations, history, sql,
};
use crate::{
    domain::{Title, UserId},
    store::{
        Append, Appended,
        operation_error::{ErrorKind, OperationError},
        replay::{self, IdConflict, replays},
    },
};

replays!(SqliteConnection, Uuid::hyphenated, Micros);

/// Reads what a save needs of its conversation, and whether it may be a retry or use an id that is
/// in use. Parameters: $1 conversation, $2 user or NULL, $3 idempotency key or NULL, $4 ids of the
/// messages that the caller chose, as a JSON array, or NULL.
const STATE: &str = concat!(
    "SELECT c.last_seq, c.user_id, c.uncompacted_tokens, \
       ($3 IS NOT NULL AND EXISTS (SELECT 1 FROM requests r \
          WHERE r.conversation_id = $1 AND r.request_id = $3)) \
       OR ($4 IS NOT NULL AND EXISTS (SELECT 1 FROM json_each($4) i \
          CROSS JOIN messages m WHERE m.id = i.value)) \
     FROM conversations c WHERE ",
    sql::conversation_condition!()
);

/// Begins what [`END_TURN`] ends or [`UNDO_TURN`] undoes.
const BEGIN_TURN: &str = "SAVEPOINT turn";
const END_TURN: &str = "RELEASE turn";
const UNDO_TURN: &str = "ROLLBACK TO turn; RELEASE turn";

/// Adds the idempotency key of a save. Parameters: see [`bind_turn`].
const ADD_REQUEST: &str = "INSERT INTO requests \
    (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at) \
    VALUES ($1, $9, $10, $11, $2, NULL, $3)";

/// Advances the counter that orders activity, and the conversation. Parameters: see [`bind_turn`].
const ADVANCE: &str = "
UPDATE activity_order SET last = last + 1 WHERE only = 1;
UPDATE conversations
SET last_seq = $2,
    updated_at = max(updated_at, $3),
    activity = (SELECT o.last FROM activity_order o WHERE o.only = 1),
    title = coalesce(title, $4),
    last_session_id = coalesce($5, last_session_id),
    session_attached = CASE WHEN $5 IS NULL THEN session_attached
                            ELSE (SELECT o.last FROM activity_order o WHERE o.only = 1) END,
    title_seq = CASE WHEN title IS NULL AND $4 IS NOT NULL THEN last_seq + $6 ELSE title_seq END,
    uncompacted_tokens = uncompacted_tokens + $7,
    has_pinned = has_pinned OR $8
WHERE id = $1";

/// Number of the parameters that [`bind_turn`] binds.
const TURN_PARAMETERS: usize = 11;

/// Upper bound on the messages that are inserted by one statement.
const MAX_TOGETHER: usize = 8;

/// Statements that write a whole turn, by the number of messages less one. Each statement that is
/// executed by itself would pass between two threads.
static WHOLE_TURN: LazyLock<[TurnStatements; MAX_TOGETHER]> =
    LazyLock::new(|| std::array::from_fn(|index| TurnStatements::of(index + 1)));

/// Statements that write what belongs to a turn besides its messages.
static REST_OF_TURN: LazyLock<TurnStatements> = LazyLock::new(|| TurnStatements::of(0));

const INTO_STORE: Insertion = insertion_into!("main");

const FIND_MESSAGE: &str = "SELECT m.conversation_id, m.seq FROM messages m WHERE m.id = $1";

/// Statements with and without an idempotency key. They are created once, so that they stay
/// prepared.
struct TurnStatements {
    with_request: &'static str,
    without_request: &'static str,
}

/// State of a conversation before a save.
struct State {
    last_seq: i64,
    owner: UserId,
    uncompacted_tokens: i64,
}

/// Saves a turn, or finds its earlier save, in a transaction of its own.
pub(super) async fn append(
    writer: &SqlitePool,
    append: &Append,
) -> Result<Appended, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let appended = append_in(&mut transaction, append).await;
    connection::end(transaction, appended).await
}

/// Saves a turn, or finds its earlier save. The transaction holds the write lock, so that the
/// checks are still valid when it writes. A save that is rejected has written nothing; after an
/// error of the database, the transaction must be rolled back.
pub(super) async fn append_in(
    connection: &mut SqliteConnection,
    append: &Append,
) -> Result<Appended, OperationError> {
    if let Some(state) = new_save(connection, append).await? {
        match save(connection, append, state).await {
            // An id occurs twice in the turn, or in another one of the same transaction.
            Err(error) if error.kind() == Some(ErrorKind::UniqueViolation) => {
                query(UNDO_TURN).execute(&mut *connection).await?;
            }
            saved => return saved,
        }
    }
    replay_or_save(connection, append).await
}

/// Returns the state of the conversation if the save is certainly new and not rejected.
async fn new_save(
    connection: &mut SqliteConnection,
    append: &Append,
) -> Result<Option<State>, OperationError> {
    let conversation = &append.conversation;
    let request = append.request.as_ref();
    let read: Option<(i64, String, i64, bool)> = query_as(STATE)
        .bind(conversation.id.as_uuid().hyphenated())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .bind(request.map(|request| request.id.as_str()))
        .bind(chosen_ids(append))
        .fetch_optional(connection)
        .await?;
    let Some((last_seq, owner, uncompacted_tokens, is_known)) = read else {
        return Ok(None);
    };
    let is_expected = append.expected_last_seq.is_none_or(|seq| seq == last_seq);
    // An owner that is not valid is reported by the read of the whole conversation.
    let owner = UserId::parse(owner).ok();
    Ok(owner
        .filter(|_| is_expected && !is_known)
        .map(|owner| State {
            last_seq,
            owner,
            uncompacted_tokens,
        }))
}

/// Returns the ids that the caller chose, as a JSON array.
fn chosen_ids(append: &Append) -> Option<String> {
    let mut ids = String::new();
    for message in append.messages.iter().filter(|message| message.id_chosen) {
        let separator = if ids.is_empty() { '[' } else { ',' };
        // A write to a string does not fail.
        let _ = write!(ids, "{separator}\"{}\"", message.id.as_uuid().hyphenated());
    }
    (!ids.is_empty()).then(|| ids + "]")
}

async fn replay_or_save(
    connection: &mut SqliteConnection,
    append: &Append,
) -> Result<Appended, OperationError> {
    let conversation = conversations::get_in(connection, &append.conversation).await?;
    if let Some(replayed) = find_replay(connection, append, &conversation).await? {
        return Ok(replayed);
    }
    let state = State {
        last_seq: conversation.last_seq,
        owner: conversation.user_id,
        uncompacted_tokens: conversation.uncompacted_tokens,
    };
    save(connection, append, state).await
}

async fn save(
    connection: &mut SqliteConnection,
    append: &Append,
    state: State,
) -> Result<Appended, OperationError> {
    let (id, at, messages) = (
        append.conversation.id,
        Micros::from(append.at),
        &append.messages,
    );
    let first_seq = state.last_seq + 1;
    let is_plain = messages.len() <= MAX_TOGETHER && !messages.iter().any(has_further_rows);
    let statements = match messages.len().checked_sub(1) {
        Some(index) if is_plain => &WHOLE_TURN[index],
        _ => &*REST_OF_TURN,
    };
    let mut write = bind_turn(query(statements.of_save(append)), append, first_seq);
    if is_plain {
        for (seq, message) in (first_seq..).zip(messages) {
            write = bind_columns(write, seq, message, at);
        }
    } else {
        query(BEGIN_TURN).execute(&mut *connection).await?;
        for (seq, message) in (first_seq..).zip(messages) {
            insert(connection, INTO_STORE, id, seq, message, at).await?;
        }
    }
    write.execute(connection).await?;
    Ok(Appended::Saved {
        owner: state.owner,
        first_seq,
        uncompacted_tokens: state.uncompacted_tokens + append.tokens(),
    })
}

impl TurnStatements {
    /// Creates the statements for turns of a number of messages; for 0, those that end a turn whose
    /// messages were inserted before.
    fn of(messages: usize) -> Self {
        let mut begin = String::new();
        if messages > 0 {
            let _ = write!(begin, "{BEGIN_TURN};\n{}", INTO_STORE.message_columns);
            for message in 0..messages {
                let separator = if message == 0 { " VALUES" } else { "," };
                let _ = write!(begin, "{separator} ($1");
                let first = TURN_PARAMETERS + message * BOUND_COLUMNS + 1;
                for parameter in first..first + BOUND_COLUMNS {
                    let _ = write!(begin, ", ${parameter}");
                }
                begin.push(')');
            }
            begin.push_str(";\n");
        }
        Self {
            with_request: format!("{begin}{ADD_REQUEST};{ADVANCE};\n{END_TURN}").leak(),
            without_request: format!("{begin}{ADVANCE};\n{END_TURN}").leak(),
        }
    }

    fn of_save(&self, append: &Append) -> &'static str {
        if append.request.is_some() {
            self.with_request
        } else {
            self.without_request
        }
    }
}

/// Binds the parameters of a turn: $1 conversation, $2 its last number, $3 time, $4 title or NULL,
/// $5 session or NULL, $6 position of the message that the title was derived from, $7 tokens, $8
/// whether a message is pinned, $9 idempotency key or NULL, $10 its digest, $11 first number.
fn bind_turn<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    append: &'q Append,
    first_seq: i64,
) -> Query<'q, Sqlite, SqliteArguments> {
    let length = i64::try_from(append.messages.len()).unwrap_or(i64::MAX);
    let title = append.title.as_ref();
    let request = append.request.as_ref();
    let session = append.session_id.map(|id| id.as_uuid().hyphenated());
    query
        .bind(append.conversation.id.as_uuid().hyphenated())
        .bind(first_seq + length - 1)
        .bind(Micros::from(append.at))
        .bind(title.map(|(title, _)| Title::as_str(title)))
        .bind(session)
        .bind(title.and_then(|(_, index)| i64::try_from(index + 1).ok()))
        .bind(append.tokens())
        .bind(append.has_pinned())
        .bind(request.map(|request| request.id.as_str()))
        .bind(request.map(|request| request.digest.as_bytes()))
        .bind(first_seq)
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
