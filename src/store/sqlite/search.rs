use sqlx::{SqliteConnection, query, query_scalar, sqlite::SqliteRow};
use uuid::fmt::Hyphenated;

use super::{SqlitePool, connection, search_syntax::fts5_expression};
use crate::{
    domain::{DeptId, Role, TextSearch},
    store::{
        SearchKey, SearchPage, SearchQuery, operation_error::OperationError, rows::limit_with_next,
        search::search_rows, sql,
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
/// Parameters: $2 FTS5 expression, the others as in the statement on PostgreSQL.
const SEARCH: &str = concat!(
    "WITH found AS MATERIALIZED (
        SELECT d.id, d.conversation_id, d.seq, length(w.text) AS size,
               length(highlight(message_words, 1, char(1), '')) - length(w.text) AS times
        FROM message_words w CROSS JOIN message_documents d ON d.id = w.rowid
        WHERE message_words MATCH $2 AND ",
    sql::search_condition!(),
    "), ranked AS (
        SELECT f.id, f.conversation_id, f.seq,
               f.times / (f.times + 0.3 + 0.9 * f.size / 500.0) AS rank
        FROM found f
    ), hits AS MATERIALIZED (
        SELECT * FROM ranked r WHERE (r.rank, r.id) < ($6, $7)
        ORDER BY r.rank DESC, r.id DESC LIMIT $8
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
);

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
    readers: &SqlitePool,
    text_search: TextSearch,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let Some(expression) = fts5_expression(search.text.as_str(), &search.user_id, text_search)
    else {
        return Ok(SearchPage::EMPTY);
    };
    let SearchKey { rank, place } = search.after.unwrap_or(SearchKey::FIRST);
    let mut reader = connection::reader(readers).await?;
    let rows = query(SEARCH)
        .bind(search.user_id.as_str())
        .bind(expression)
        .bind(search.conversation_id.map(|id| id.as_uuid().hyphenated()))
        .bind(search.dept_id.as_ref().map(DeptId::as_str))
        .bind(search.role.map(Role::as_str))
        .bind(rank)
        .bind(place)
        .bind(limit_with_next(search.limit))
        .fetch(&mut *reader);
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
