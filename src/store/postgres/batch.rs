//! One statement that saves the turns of several conversations.

use chrono::{DateTime, Utc};
use sqlx::query_as;
use uuid::Uuid;

use super::{
    append::append_unlocked,
    columns::{
        BlobColumns, ContextColumns, MessageColumns, bind_blobs, bind_contexts, bind_messages,
        message_values, placeholders,
    },
    documents::{DocumentColumns, bind_documents},
    invalidations::{record_after, record_saved},
    server_state::ServerState,
    sql,
    store_connection::StoreConnection,
};
use crate::{
    domain::{NewMessage, Part, RequestId, SessionId, Title, UserId},
    store::{
        Append, Appended,
        group_commit::GroupedSave,
        operation_error::{BackendError, ErrorKind},
    },
    text_analysis::Languages,
};

/// Saves turns of different conversations. Its text does not depend on their number.
///
/// `locked` has the turns that pass all checks. Their rows are locked in one order, so that two
/// batches cannot wait for each other; a row that another transaction has locked is skipped, so that
/// a long removal does not delay the other turns of the batch. Turns that are skipped or do not pass
/// have no result, and are saved or rejected one by one.
///
/// As in the statement that saves one turn, the primary key of the requests ledger is what rejects a
/// duplicate: the snapshot of the statement can be older than the locked rows.
const APPEND_BATCH: &str = concat!(
    "
WITH locked AS MATERIALIZED (
    SELECT i.*
    FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) WITH ORDINALITY
             AS i (id, user_id, expected_last_seq, request_id, digest, at, session_id, title,
                   title_number, tokens, has_pinned, record_after, messages_before, messages, save)
        JOIN conversations c ON c.id = i.id
    WHERE (i.user_id IS NULL OR c.user_id = i.user_id)
      AND (i.expected_last_seq IS NULL OR c.last_seq = i.expected_last_seq)
      AND NOT EXISTS (SELECT 1 FROM requests r
                      WHERE r.conversation_id = i.id AND r.request_id = i.request_id)
    ORDER BY c.id
    FOR NO KEY UPDATE OF c SKIP LOCKED
), saved AS (
    UPDATE conversations c
    SET last_seq = c.last_seq + i.messages,
        updated_at = greatest(c.updated_at, i.at),
        activity = nextval('activity_order'),
        title = coalesce(c.title, i.title),
        title_seq = CASE WHEN c.title IS NULL AND i.title IS NOT NULL
                         THEN c.last_seq + i.title_number ELSE c.title_seq END,
        uncompacted_tokens = c.uncompacted_tokens + i.tokens,
        has_pinned = c.has_pinned OR i.has_pinned,
        last_session_id = coalesce(i.session_id, c.last_session_id),
        session_attached = CASE WHEN i.session_id IS NULL THEN c.session_attached
                                ELSE nextval('activity_order') END
    FROM locked i
    WHERE c.id = i.id
    RETURNING c.id, c.user_id, c.dept_id, c.last_seq - i.messages AS before_seq, c.last_seq,
        c.uncompacted_tokens, i.save, i.messages_before, i.request_id, i.digest, i.at, i.record_after
), new_messages AS (
    INSERT INTO messages (conversation_id, seq, ",
    message_values!(""),
    ")
    SELECT s.id, s.before_seq + m.number - s.messages_before, ",
    message_values!("m."),
    "
    FROM unnest($26, ",
    placeholders!(batch messages),
    ") WITH ORDINALITY AS m (save, ",
    message_values!(""),
    ", number) JOIN saved s ON s.save = m.save
), new_contexts AS (
    INSERT INTO message_contexts (conversation_id, seq, position, ",
    sql::context_columns!(""),
    ")
    SELECT s.id, s.before_seq + x.number - s.messages_before, x.position, ",
    sql::context_columns!("x."),
    "
    FROM unnest($15, ",
    placeholders!(batch contexts),
    ") AS x (save, number, position, ",
    sql::context_columns!(""),
    ") JOIN saved s ON s.save = x.save
), new_blobs AS (
    INSERT INTO message_blobs (conversation_id, seq, position, data)
    SELECT s.id, s.before_seq + b.number - s.messages_before, b.position, b.data
    FROM unnest($22, ",
    placeholders!(batch blobs),
    ") AS b (save, number, position, data) JOIN saved s ON s.save = b.save
), new_documents AS (
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
    SELECT s.id, s.before_seq + d.number - s.messages_before, s.user_id, s.dept_id, d.role, $40,
           d.words
    FROM unnest($39, $41, $42, $43) AS d (save, number, role, words)
        JOIN saved s ON s.save = d.save
    ORDER BY d.number
), new_requests AS (
    INSERT INTO requests (conversation_id, request_id, digest, first_seq, last_seq, created_at)
    SELECT s.id, s.request_id, s.digest, s.before_seq + 1, s.last_seq, s.at
    FROM saved s WHERE s.request_id IS NOT NULL
), pending_invalidation AS (
    ",
    record_saved!("s.record_after"),
    "
)
SELECT s.save, s.user_id, s.before_seq + 1 AS first_seq, s.uncompacted_tokens FROM saved s"
);

/// Row of a saved turn.
type SavedRow = (i64, String, i64, i64);

/// Values of the turns, one array for each column.
#[derive(Default)]
struct SaveColumns<'a> {
    ids: Vec<Uuid>,
    user_ids: Vec<Option<&'a str>>,
    expected_last_seqs: Vec<Option<i64>>,
    request_ids: Vec<Option<&'a str>>,
    digests: Vec<Option<&'a [u8]>>,
    times: Vec<DateTime<Utc>>,
    session_ids: Vec<Option<Uuid>>,
    titles: Vec<Option<&'a str>>,
    /// Numbers in their turns, from 1, of the messages that the titles were derived from.
    title_numbers: Vec<Option<i64>>,
    tokens: Vec<i64>,
    has_pinned: Vec<bool>,
    record_after: Vec<Option<DateTime<Utc>>>,
    /// Number of the messages of the turns before.
    messages_before: Vec<i64>,
    messages: Vec<i64>,
}

impl<'a> SaveColumns<'a> {
    fn push(&mut self, append: &'a Append, messages_before: usize, server: &ServerState) {
        let request = append.request.as_ref();
        let title = append.title.as_ref();
        self.ids.push(append.conversation.id.as_uuid());
        let user_id = append.conversation.user_id.as_ref();
        self.user_ids.push(user_id.map(UserId::as_str));
        self.expected_last_seqs.push(append.expected_last_seq);
        let request_id = request.map(|request| RequestId::as_str(&request.id));
        self.request_ids.push(request_id);
        let digest = request.map(|request| request.digest.as_bytes());
        self.digests.push(digest);
        self.times.push(append.at);
        self.session_ids
            .push(append.session_id.map(SessionId::as_uuid));
        self.titles
            .push(title.map(|(title, _)| Title::as_str(title)));
        self.title_numbers
            .push(title.map(|(_, index)| to_i64(index + 1)));
        self.tokens.push(append.tokens());
        self.has_pinned.push(append.has_pinned());
        self.record_after
            .push(record_after(append.invalidation, server));
        self.messages_before.push(to_i64(messages_before));
        self.messages.push(to_i64(append.messages.len()));
    }
}

/// Saves turns of different conversations. Returns the outcome of each one that was saved; the
/// others do not pass a check, or their conversation is locked.
pub(super) async fn append_batch(
    connection: &mut StoreConnection,
    server: &ServerState,
    languages: Languages,
    saves: &[GroupedSave<'_>],
) -> Result<Vec<Option<Appended>>, BackendError> {
    if let [GroupedSave { append, .. }] = saves
        && !has_attachments(append)
    {
        let saved = append_unlocked(connection, server, languages, append).await?;
        return Ok(vec![saved]);
    }
    let mut columns = SaveColumns::default();
    let mut messages = MessageColumns::default();
    let mut all: Vec<&NewMessage> = Vec::with_capacity(saves.len() * 2);
    // For each message, the number of its turn.
    let mut turns: Vec<i64> = Vec::with_capacity(saves.len() * 2);
    for (number, GroupedSave { append, .. }) in (1..).zip(saves) {
        columns.push(append, all.len(), server);
        messages.extend(append.messages.iter(), append.at);
        all.extend(&append.messages);
        turns.resize(all.len(), number);
    }
    let contexts = ContextColumns::new((1..).zip(all.iter().copied()));
    let blobs = BlobColumns::new((1..).zip(all.iter().copied()));
    let documents = DocumentColumns::new((1..).zip(all.iter().copied()), languages);
    let turns_of = |numbers: &[i64]| -> Vec<i64> {
        let turn = |number: &i64| turns[usize::try_from(*number - 1).unwrap_or_default()];
        numbers.iter().map(turn).collect()
    };
    let context_turns = turns_of(&contexts.message_numbers);
    let blob_turns = turns_of(&blobs.message_numbers);
    let document_turns = turns_of(&documents.message_numbers);
    let query = query_as(APPEND_BATCH)
        .bind(columns.ids)
        .bind(columns.user_ids)
        .bind(columns.expected_last_seqs)
        .bind(columns.request_ids)
        .bind(columns.digests)
        .bind(columns.times)
        .bind(columns.session_ids)
        .bind(columns.titles)
        .bind(columns.title_numbers)
        .bind(columns.tokens)
        .bind(columns.has_pinned)
        .bind(columns.record_after)
        .bind(columns.messages_before)
        .bind(columns.messages)
        .bind(context_turns);
    let query = bind_contexts!(query, contexts).bind(blob_turns);
    let query = bind_blobs!(query, blobs).bind(turns);
    let query = bind_messages!(query, messages).bind(document_turns);
    let rows: Vec<SavedRow> = bind_documents!(query, documents)
        .fetch_all(connection)
        .await?;
    outcomes(rows, saves.len())
}

/// Whether a message has contexts or the data of blobs.
pub(super) fn has_attachments(append: &Append) -> bool {
    append.messages.iter().any(|message| {
        let mut blobs = message.parts.iter().filter_map(Part::as_blob);
        !message.contexts.is_empty() || blobs.any(|blob| blob.data.is_some())
    })
}

/// Assigns the rows to the turns by their numbers.
fn outcomes(rows: Vec<SavedRow>, turns: usize) -> Result<Vec<Option<Appended>>, BackendError> {
    let mut outcomes = vec![None; turns];
    for (number, owner, first_seq, uncompacted_tokens) in rows {
        let owner = UserId::parse(owner).map_err(|_| {
            BackendError::new(ErrorKind::Internal, "the stored user_id is not valid")
        })?;
        let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if let Some(outcome) = outcomes.get_mut(index) {
            *outcome = Some(Appended::Saved {
                owner,
                first_seq,
                uncompacted_tokens,
            });
        }
    }
    Ok(outcomes)
}

fn to_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
