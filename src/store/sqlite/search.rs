use sqlx::{SqliteConnection, query, query_scalar, sqlite::SqliteRow};
use uuid::fmt::Hyphenated;

use super::{Pool, connection, search_syntax::expression};
use crate::{
    domain::{DeptId, Role, TextSearch},
    store::{
        SearchKey, SearchPage, SearchQuery, failure::OperationError, search::search_rows, sql,
    },
};

search_rows!(SqliteRow, Hyphenated);

/// The page first, and then what there is to show of it.
///
/// A rank is made of the message alone: how often it has what is searched for,
/// damped as BM25 does it, against a usual length of 500 characters. BM25 itself
/// weighs words by how rare they are among everybody's messages, which would tell
/// of these, cost as much as they are, and change between two pages.
///
/// $2 expression of FTS5, the rest as in the statement on PostgreSQL.
const SEARCH: &str = concat!(
    "WITH found AS MATERIALIZED (
        SELECT d.id, d.conversation_id, d.seq, length(w.text) AS size,
               length(highlight(message_words, 1, char(1), '')) - length(w.text) AS times
        FROM message_words w CROSS JOIN message_documents d ON d.id = w.rowid
        WHERE message_words MATCH $2 AND ",
    sql::searched!(),
    "), ranked AS (
        SELECT f.id, f.conversation_id, f.seq,
               f.times / (f.times + 0.3 + 0.9 * f.size / 500.0) AS rank
        FROM found f
    ), hits AS MATERIALIZED (
        SELECT * FROM ranked r WHERE (r.rank, r.id) < ($6, $7)
        ORDER BY r.rank DESC, r.id DESC LIMIT $8
    ), shown AS MATERIALIZED (SELECT h.*, ",
    sql::shown_in!(),
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

/// How the index takes texts apart.
const TOKENIZER: &str = "SELECT sql FROM sqlite_master WHERE name = 'message_words'";

/// The index anew: the same table with another tokenizer, filled from the texts.
const INDEX_ENGLISH: &str = "
DROP TABLE message_words;
CREATE VIRTUAL TABLE message_words USING fts5 (
    owner, text, content = 'message_texts', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 0'
);
INSERT INTO message_words (message_words) VALUES ('rebuild')";

const INDEX_SIMPLE: &str = "
DROP TABLE message_words;
CREATE VIRTUAL TABLE message_words USING fts5 (
    owner, text, content = 'message_texts', content_rowid = 'id',
    tokenize = 'unicode61 remove_diacritics 0'
);
INSERT INTO message_words (message_words) VALUES ('rebuild')";

pub(super) async fn search(
    readers: &Pool,
    text_search: TextSearch,
    wanted: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let Some(expression) = expression(wanted.text.as_str(), &wanted.user_id, text_search) else {
        return Ok(SearchPage::of(Vec::new(), wanted.limit));
    };
    let SearchKey { rank, place } = wanted.after.unwrap_or(SearchKey::START);
    let mut reader = connection::reader(readers).await?;
    let hits = query(SEARCH)
        .bind(wanted.user_id.as_str())
        .bind(expression)
        .bind(wanted.conversation_id.map(|id| id.as_uuid().hyphenated()))
        .bind(wanted.dept_id.as_ref().map(DeptId::as_str))
        .bind(wanted.role.map(Role::as_str))
        .bind(rank)
        .bind(place)
        // One more tells whether there is a next page.
        .bind(i64::from(wanted.limit) + 1)
        .fetch_all(&mut *reader)
        .await?
        .iter()
        .map(hit)
        .collect::<Result<_, _>>()?;
    Ok(SearchPage::of(hits, wanted.limit))
}

/// Whether the index is made in this way.
pub(super) async fn is_indexed(
    connection: &mut SqliteConnection,
    text_search: TextSearch,
) -> sqlx::Result<bool> {
    let made_by: String = query_scalar(TOKENIZER).fetch_one(connection).await?;
    Ok(made_by.contains("porter") == (text_search == TextSearch::English))
}

/// Makes the index anew, in the transaction that the connection is in.
pub(super) async fn index(
    connection: &mut SqliteConnection,
    text_search: TextSearch,
) -> sqlx::Result<()> {
    let statements = match text_search {
        TextSearch::English => INDEX_ENGLISH,
        TextSearch::Simple => INDEX_SIMPLE,
    };
    sqlx::raw_sql(statements).execute(connection).await?;
    Ok(())
}
