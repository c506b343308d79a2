//! Saves of turns: by themselves, or several in one transaction.

use std::{fmt::Write as _, sync::LazyLock};

use sqlx::{
    Sqlite, SqliteConnection, query, query::Query, query_as, sqlite::SqliteArguments, types::Json,
};
use uuid::{Uuid, fmt::Hyphenated};

use super::{
    SqlitePool,
    columns::{BOUND_COLUMNS, Insertion, bind_columns, has_further_rows, insert, insertion_into},
    connection::{self, Micros},
    conversations, history, sql,
};
use crate::{
    domain::{ConversationId, Title, UserId},
    store::{
        Append, Appended,
        operation_error::{ErrorKind, OperationError},
        replay::{self, IdConflict, replays},
    },
};

replays!(SqliteConnection, Uuid::hyphenated, Micros);

/// Assignments to a conversation that is appended to.
macro_rules! set_conversation {
    (last_seq: $last_seq:literal, at: $at:literal, activity: $activity:literal,
     title: $title:literal, title_number: $title_number:literal, session: $session:literal,
     tokens: $tokens:literal, has_pinned: $has_pinned:literal) => {
        concat!(
            "last_seq = ",
            $last_seq,
            ", updated_at = max(updated_at, ",
            $at,
            "), activity = ",
            $activity,
            ", title = coalesce(title, ",
            $title,
            "), title_seq = CASE WHEN title IS NULL AND ",
            $title,
            " IS NOT NULL THEN last_seq + ",
            $title_number,
            " ELSE title_seq END, last_session_id = coalesce(",
            $session,
            ", last_session_id), session_attached = CASE WHEN ",
            $session,
            " IS NULL THEN session_attached ELSE ",
            $activity,
            " END, uncompacted_tokens = uncompacted_tokens + ",
            $tokens,
            ", has_pinned = has_pinned OR ",
            $has_pinned
        )
    };
}
pub(super) use set_conversation;

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

/// Begins what [`END_TURN`] ends or [`UNDO_TURN`] undoes, in a turn whose messages are inserted by
/// one statement each.
const BEGIN_TURN: &str = "SAVEPOINT turn";
const END_TURN: &str = ";\nRELEASE turn";
const UNDO_TURN: &str = "ROLLBACK TO turn; RELEASE turn";

/// Adds the idempotency key of a save. Parameters: see [`bind_turn`].
const ADD_REQUEST: &str = "INSERT INTO requests \
    (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at) \
    VALUES ($1, $9, $10, $11, $2, NULL, $3)";

/// Advances the counter that orders activity, and the conversation. Parameters: see [`bind_turn`].
const ADVANCE: &str = concat!(
    "UPDATE activity_order SET last = last + 1 WHERE only = 1;
UPDATE conversations SET ",
    set_conversation!(
        last_seq: "$2",
        at: "$3",
        activity: "(SELECT o.last FROM activity_order o WHERE o.only = 1)",
        title: "$4",
        title_number: "$6",
        session: "$5",
        tokens: "$7",
        has_pinned: "$8"
    ),
    " WHERE id = $1"
);

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

/// Parameters: $1 conversation, $2 ids as a JSON array.
const FIND_MESSAGES: &str = "SELECT m.conversation_id, m.seq FROM json_each($2) i \
    CROSS JOIN messages m ON m.id = i.value \
    WHERE m.conversation_id = $1 OR EXISTS (SELECT 1 FROM lineage l \
        WHERE l.conversation_id = $1 AND l.source_id = m.conversation_id \
          AND m.seq > l.after_seq AND m.seq <= l.upto_seq) \
    ORDER BY m.seq";

/// Statements with and without an idempotency key. They are created once, so that they stay
/// prepared.
struct TurnStatements {
    with_request: &'static str,
    without_request: &'static str,
}

/// State of a conversation before a save.
pub(super) struct State {
    last_seq: i64,
    owner: UserId,
    uncompacted_tokens: i64,
}

/// Columns of a [`State`].
pub(super) type StateRow = (i64, String, i64);

impl State {
    /// Decodes the state of the conversation of a save. `None` if the save is rejected because of
    /// it.
    pub(super) fn of(append: &Append, row: StateRow) -> Option<Self> {
        let (last_seq, owner, uncompacted_tokens) = row;
        let is_expected = append.expected_last_seq.is_none_or(|seq| seq == last_seq);
        // An owner that is not valid is reported by the read of the whole conversation.
        let owner = UserId::parse(owner).ok();
        owner.filter(|_| is_expected).map(|owner| Self {
            last_seq,
            owner,
            uncompacted_tokens,
        })
    }

    /// Number of the first message of the save.
    pub(super) fn first_seq(&self) -> i64 {
        self.last_seq + 1
    }

    /// Outcome of the save.
    pub(super) fn saved(self, append: &Append) -> Appended {
        Appended::Saved {
            first_seq: self.first_seq(),
            owner: self.owner,
            uncompacted_tokens: self.uncompacted_tokens + append.tokens(),
        }
    }
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
                // The statements for a whole turn have written nothing.
                if whole_turn(append).is_none() {
                    query(UNDO_TURN).execute(&mut *connection).await?;
                }
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
    Ok(read
        .filter(|(.., is_known)| !is_known)
        .and_then(|(last_seq, owner, tokens, _)| State::of(append, (last_seq, owner, tokens))))
}

/// Returns the ids that the caller chose.
pub(super) fn chosen_ids(append: &Append) -> Option<Json<Vec<String>>> {
    let chosen = append.messages.iter().filter(|message| message.id_chosen);
    let ids: Vec<_> = chosen.map(|message| message.id.to_string()).collect();
    (!ids.is_empty()).then_some(Json(ids))
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
    let first_seq = state.first_seq();
    let whole = whole_turn(append);
    let statements = whole.unwrap_or(&REST_OF_TURN);
    let mut write = bind_turn(query(statements.of_save(append)), append, first_seq);
    if whole.is_some() {
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
    Ok(state.saved(append))
}

/// Returns the statements that write the whole turn. Only the insertion of the messages, which is
/// the first one, can violate the uniqueness of a value: then nothing is written. `None` if the
/// messages are inserted one by one.
fn whole_turn(append: &Append) -> Option<&'static TurnStatements> {
    let messages = &append.messages;
    let index = messages.len().checked_sub(1)?;
    let statements = WHOLE_TURN.get(index)?;
    (!messages.iter().any(has_further_rows)).then_some(statements)
}

impl TurnStatements {
    /// Creates the statements for turns of a number of messages; for 0, those that end a turn whose
    /// messages were inserted before.
    fn of(messages: usize) -> Self {
        let mut begin = String::new();
        let end = if messages == 0 { END_TURN } else { "" };
        if messages > 0 {
            begin += INTO_STORE.message_columns;
            for message in 0..messages {
                let separator = if message == 0 { " VALUES" } else { "," };
                // A write to a string does not fail.
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
            with_request: format!("{begin}{ADD_REQUEST};\n{ADVANCE}{end}").leak(),
            without_request: format!("{begin}{ADVANCE}{end}").leak(),
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

/// Returns the messages with these ids that are stored under the id of the conversation or that it
/// contains: the ids that they are stored under, and their numbers, in ascending order.
async fn find_messages(
    connection: &mut SqliteConnection,
    conversation: ConversationId,
    ids: Vec<Uuid>,
) -> Result<Vec<(Uuid, i64)>, OperationError> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let found: Vec<(Hyphenated, i64)> = query_as(FIND_MESSAGES)
        .bind(conversation.as_uuid().hyphenated())
        .bind(Json(ids))
        .fetch_all(connection)
        .await?;
    let found = found.into_iter();
    Ok(found
        .map(|(source, seq)| (source.into_uuid(), seq))
        .collect())
}
