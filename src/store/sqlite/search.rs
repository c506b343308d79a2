use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use sqlx::{
    Sqlite, SqliteConnection, pool::PoolConnection, query, query_as, query_scalar,
    sqlite::SqliteRow,
};
use uuid::fmt::Hyphenated;

use super::{SqlitePool, connection, search_syntax::fts5_expression};
use crate::{
    domain::{DeptId, Role, TextSearch},
    store::{
        SearchKey, SearchPage, SearchQuery,
        operation_error::OperationError,
        pool::Pooled,
        rows::limit_with_next,
        search::search_rows,
        search_limit::{SEARCH_TIME, SearchLimit, SearchPermit},
        sql,
    },
};

search_rows!(SqliteRow, Hyphenated);

/// Selects the page, and then reads the values of its hits.
///
/// A rank depends on the message alone: on how often it contains the searched words, damped as
/// in BM25, and on its length in relation to 500 characters. BM25 itself weighs words by their
/// frequency in the messages of all users. That would disclose information about those
/// messages, take time in proportion to their number, and change between two pages.
///
/// `$documents` joins the words `w` and the documents `d`. Parameters: $2 FTS5 expression, the others
/// as in the statement on PostgreSQL.
macro_rules! search {
    ($documents:expr) => {
        concat!(
            "WITH found AS MATERIALIZED (
                SELECT d.id, d.conversation_id, d.seq, length(w.text) AS size,
                       length(highlight(message_words, 1, char(1), '')) - length(w.text) AS times
                FROM ",
            $documents,
            " AND message_words MATCH $2 AND ",
            sql::search_condition!(),
            " AND NOT EXISTS (SELECT 1 FROM pending_removals p WHERE p.source_id = d.conversation_id
                              AND p.after_seq < d.seq AND p.upto_seq >= d.seq)
            ), ranked AS (
                SELECT f.id, f.conversation_id, f.seq,
                       f.times / (f.times + 0.3 + 0.9 * f.size / 500.0) AS rank
                FROM found f
            ), hits AS MATERIALIZED (
                SELECT * FROM ranked r WHERE (r.rank, r.id) < ($6, $7)
                ORDER BY r.rank DESC, r.id DESC LIMIT CAST($8 AS INTEGER)
            ), shown AS MATERIALIZED (SELECT h.*, ",
            sql::hit_conversation!(),
            " AS shown_in FROM hits h)
            SELECT h.id AS place, h.rank, h.shown_in AS conversation_id, c.title, ",
            sql::message_columns!(),
            ", highlight(message_words, 1, '⟦', '⟧') AS marked
            FROM shown h
            CROSS JOIN message_words w ON w.rowid = h.id
            CROSS JOIN messages m ON m.conversation_id = h.conversation_id AND m.seq = h.seq
            LEFT JOIN conversations c ON c.id = h.shown_in
            WHERE message_words MATCH $2
            ORDER BY h.rank DESC, h.id DESC"
        )
    };
}

/// Searches all messages of a user: those with the words, and of them the user's.
const SEARCH_USER: &str =
    search!("message_words w CROSS JOIN message_documents d ON d.id = w.rowid WHERE (1 = 1)");

/// Searches a conversation that has few of the user's messages: each is looked up in the index.
const SEARCH_EACH: &str = search!(concat!(
    "(",
    sql::searched_ranges!(),
    ") AS s CROSS JOIN message_documents d ON d.conversation_id = s.source_id \
       AND d.seq > s.after_seq AND d.seq <= s.upto_seq \
     CROSS JOIN message_words w ON w.rowid = d.id WHERE (1 = 1)"
));

/// Searches a conversation that has many of the user's messages: those of the user with the words,
/// and of them those of the conversation. Parameters: $9 and $10 the first and last document of the
/// conversation.
const SEARCH_WITHIN: &str = search!(concat!(
    "message_words w CROSS JOIN message_documents d ON d.id = w.rowid \
     WHERE w.rowid BETWEEN $9 AND $10 AND EXISTS (SELECT 1 FROM (",
    sql::searched_ranges!(),
    ") AS s WHERE s.source_id = d.conversation_id \
         AND d.seq > s.after_seq AND d.seq <= s.upto_seq)"
));

/// A look-up in the index takes as long as reading so many entries of it in order.
const LOOKUP_COST: i64 = 20;

/// Reads the number of a conversation's documents, and the first and the last of them. Parameter:
/// $1 conversation.
const EXTENT: &str = concat!(
    "SELECT count(*), coalesce(min(d.id), 0), coalesce(max(d.id), 0) FROM (",
    sql::searched_ranges!("$1"),
    ") AS s CROSS JOIN message_documents d ON d.conversation_id = s.source_id \
       AND d.seq > s.after_seq AND d.seq <= s.upto_seq"
);

/// Number of instructions of SQLite's virtual machine between two checks of the limit.
const STEPS_PER_CHECK: i32 = 1_000;

/// Definition of the index, which names its tokenizer.
const INDEX_DEFINITION: &str = "SELECT sql FROM sqlite_master WHERE name = 'message_words'";

/// Rebuilds the index: the same table with another tokenizer, filled from the texts.
const REBUILD_ENGLISH: &str = "
DROP TABLE message_words;
CREATE VIRTUAL TABLE message_words USING fts5 (
    owner, text, content = 'message_texts', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 0'
);
INSERT INTO message_words (message_words) VALUES ('rebuild')";

const REBUILD_SIMPLE: &str = "
DROP TABLE message_words;
CREATE VIRTUAL TABLE message_words USING fts5 (
    owner, text, content = 'message_texts', content_rowid = 'id',
    tokenize = 'unicode61 remove_diacritics 0'
);
INSERT INTO message_words (message_words) VALUES ('rebuild')";

/// Reads a page of search hits.
pub(super) async fn search(
    searchers: &SqlitePool,
    limit: &SearchLimit,
    text_search: TextSearch,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let Some(expression) = fts5_expression(search.text.as_str(), &search.user_id, text_search)
    else {
        return Ok(SearchPage::EMPTY);
    };
    let mut searcher = LimitedSearcher::acquire(searchers, limit).await?;
    let found = find(&mut searcher.connection, search, expression).await;
    searcher.end(found)
}

/// Connection of one search. Its statements are interrupted at the time limit of a search, and when it
/// is dropped because the caller has gone away.
pub(super) struct LimitedSearcher {
    permit: SearchPermit,
    pub(super) connection: Pooled<PoolConnection<Sqlite>>,
    _limit: InterruptOnDrop,
}

impl LimitedSearcher {
    /// Waits for a permit and a connection.
    pub(super) async fn acquire(
        searchers: &SqlitePool,
        limit: &SearchLimit,
    ) -> Result<Self, OperationError> {
        let permit = limit.start().await?;
        let mut connection = connection::reader(searchers).await?;
        let limit = limit_time(&mut connection).await?;
        Ok(Self {
            permit,
            connection,
            _limit: limit,
        })
    }

    /// Ends the search with its outcome.
    pub(super) fn end<T>(self, found: Result<T, OperationError>) -> Result<T, OperationError> {
        self.permit.end();
        found.map_err(OperationError::of_search)
    }
}

/// Interrupts the statements of a connection at the time limit of a search, or when the returned
/// value is dropped because the caller has gone away.
async fn limit_time(connection: &mut SqliteConnection) -> sqlx::Result<InterruptOnDrop> {
    let is_dropped = Arc::new(AtomicBool::new(false));
    let (limit, interrupt) = (
        Instant::now() + SEARCH_TIME,
        InterruptOnDrop(Arc::clone(&is_dropped)),
    );
    let mut handle = connection.lock_handle().await?;
    handle.set_progress_handler(STEPS_PER_CHECK, move || {
        !is_dropped.load(Ordering::Relaxed) && Instant::now() < limit
    });
    Ok(interrupt)
}

/// Interrupts the statement that runs on a connection when it is dropped.
struct InterruptOnDrop(Arc<AtomicBool>);

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn find(
    connection: &mut SqliteConnection,
    search: &SearchQuery,
    expression: String,
) -> Result<SearchPage, OperationError> {
    let conversation = search.conversation_id.map(|id| id.as_uuid().hyphenated());
    let (statement, first, last) = match conversation {
        None => (SEARCH_USER, 0, 0),
        Some(id) => {
            let extent = query_as(EXTENT)
                .bind(id)
                .fetch_one(&mut *connection)
                .await?;
            let (documents, first, last): (i64, i64, i64) = extent;
            if documents.saturating_mul(LOOKUP_COST) < last - first {
                (SEARCH_EACH, first, last)
            } else {
                (SEARCH_WITHIN, first, last)
            }
        }
    };
    let SearchKey { rank, place } = search.after.unwrap_or(SearchKey::FIRST);
    let rows = query(statement)
        .bind(search.user_id.as_str())
        .bind(expression)
        .bind(conversation)
        .bind(search.dept_id.as_ref().map(DeptId::as_str))
        .bind(search.role.map(Role::as_str))
        .bind(rank)
        .bind(place)
        .bind(limit_with_next(search.limit));
    let rows = if statement == SEARCH_WITHIN {
        rows.bind(first).bind(last)
    } else {
        rows
    };
    let rows = rows.fetch(connection);
    SearchPage::collect(rows, decode_hit, search.limit).await
}

/// Returns whether the index uses this configuration.
pub(super) async fn is_indexed(
    connection: &mut SqliteConnection,
    text_search: TextSearch,
) -> sqlx::Result<bool> {
    let definition: String = query_scalar(INDEX_DEFINITION).fetch_one(connection).await?;
    Ok(definition.contains("porter") == (text_search == TextSearch::English))
}

/// Rebuilds the index in the open transaction of the connection.
pub(super) async fn rebuild_index(
    connection: &mut SqliteConnection,
    text_search: TextSearch,
) -> sqlx::Result<()> {
    let statements = match text_search {
        TextSearch::English => REBUILD_ENGLISH,
        TextSearch::Simple => REBUILD_SIMPLE,
    };
    sqlx::raw_sql(statements).execute(connection).await?;
    Ok(())
}
