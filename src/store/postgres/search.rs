use std::borrow::Cow;

use sqlx::{PgConnection, postgres::PgRow, query};
use uuid::Uuid;

use super::{PostgresPool, connection::PooledConnection};
use crate::{
    domain::{ConversationId, DeptId, Role},
    store::{
        SearchKey, SearchPage, SearchQuery, operation_error::OperationError, rows::limit_with_next,
        search::search_rows, search_limit::SearchPermit, sql,
    },
};

search_rows!(PgRow, Uuid);

/// Selects the page from the documents alone, and then reads the values of its hits. The schema
/// defines the functions. A document is searched with the configuration under which its words
/// were stored. Long words of the query are cut like those of the documents: PostgreSQL rejects
/// a word that exceeds the length of a lexeme when it is folded to lower case.
///
/// A rank depends on how often a message contains the words. The operand that is in no message
/// selects this ranking for all queries: for words that must all occur, PostgreSQL compares the
/// positions of each two of them, which takes seconds for a message that repeats many words.
///
/// `$documents` selects the documents `d`. Parameters: $1 user, $2 text, $3 conversation, $4
/// department and $5 role or NULL, $6 rank and $7 place of the last hit of the previous page, $8
/// limit.
macro_rules! search {
    ($documents:expr) => {
        concat!(
            "WITH wanted AS MATERIALIZED (
                SELECT websearch_to_tsquery('pg_catalog.english', searched_text($2)) AS english,
                       websearch_to_tsquery('pg_catalog.simple', searched_text($2)) AS simple
            ), hits AS MATERIALIZED (
                SELECT d.id, d.conversation_id, d.seq, d.config, w.query, r.rank
                FROM ",
            $documents,
            " CROSS JOIN LATERAL (
                    SELECT CASE d.config WHEN 'simple' THEN (SELECT simple FROM wanted)
                                         ELSE (SELECT english FROM wanted) END AS query
                    OFFSET 0
                ) w
                CROSS JOIN LATERAL (
                    SELECT ts_rank(d.words, w.query || '~'::tsquery, 1)::double precision AS rank
                ) r
                WHERE ",
            sql::search_condition!(),
            "     AND d.words @@ w.query
                  AND (r.rank, d.id) < ($6, $7)
                ORDER BY r.rank DESC, d.id DESC
                LIMIT $8
            ), shown AS MATERIALIZED (SELECT h.*, ",
            sql::hit_conversation!(),
            " AS shown_in FROM hits h)
            SELECT h.id AS place, h.rank, h.shown_in AS conversation_id, c.title, ",
            sql::message_columns!(),
            ",
                ts_headline(
                    CASE h.config WHEN 'simple' THEN 'pg_catalog.simple'
                                  ELSE 'pg_catalog.english' END::regconfig,
                    translate(searched_text(m.content), '⟦⟧', '[]'), h.query,
                    'StartSel=⟦, StopSel=⟧, HighlightAll=true'
                ) AS marked
            FROM shown h
            JOIN messages m ON m.conversation_id = h.conversation_id AND m.seq = h.seq
            LEFT JOIN conversations c ON c.id = h.shown_in
            ORDER BY h.rank DESC, h.id DESC"
        )
    };
}

/// Searches all messages of a user.
const SEARCH_USER: &str = search!("message_documents d");

/// Searches the messages of a conversation. The others of its user are not read.
const SEARCH_CONVERSATION: &str = search!(concat!(
    "(",
    sql::searched_ranges!(),
    ") AS s CROSS JOIN LATERAL (SELECT d.* FROM message_documents d \
       WHERE d.conversation_id = s.source_id AND d.seq > s.after_seq AND d.seq <= s.upto_seq \
       OFFSET 0) AS d"
));

/// Reads a page of search hits.
pub(super) async fn search(
    pool: &PostgresPool,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let (permit, mut connection) = begin_search(pool).await?;
    let page = find(&mut connection, search).await;
    permit.end();
    connection.release(page)
}

/// Waits until another search may use a connection, and for the connection.
pub(super) async fn begin_search(
    pool: &PostgresPool,
) -> Result<(SearchPermit, PooledConnection), OperationError> {
    let permit = pool.searches.start().await?;
    match PooledConnection::acquire(pool).await {
        Ok(connection) => Ok((permit, connection)),
        Err(error) => {
            permit.end();
            Err(error.into())
        }
    }
}

async fn find(
    connection: &mut PgConnection,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let SearchKey { rank, place } = search.after.unwrap_or(SearchKey::FIRST);
    let statement = if search.conversation_id.is_some() {
        SEARCH_CONVERSATION
    } else {
        SEARCH_USER
    };
    let rows = query(statement)
        .bind(search.user_id.as_str())
        .bind(limit_negations(search.text.as_str()))
        .bind(search.conversation_id.map(ConversationId::as_uuid))
        .bind(search.dept_id.as_ref().map(DeptId::as_str))
        .bind(search.role.map(Role::as_str))
        .bind(rank)
        .bind(place)
        .bind(limit_with_next(search.limit))
        .fetch(connection);
    let page = SearchPage::collect(rows, decode_hit, search.limit).await;
    page.map_err(OperationError::of_search)
}

/// Returns an equivalent query with at most one negation before each operand. PostgreSQL fails
/// at 32 consecutive negations, which a line of hyphens in a pasted text exceeds.
fn limit_negations(text: &str) -> Cow<'_, str> {
    const MAX_UNCHANGED: usize = 16;
    if text.matches('-').count() <= MAX_UNCHANGED {
        return text.into();
    }
    let mut limited = String::with_capacity(text.len());
    let (mut is_negated, mut is_in_word, mut is_in_phrase) = (false, false, false);
    for c in text.chars() {
        if is_in_phrase {
            is_in_phrase = c != '"';
        } else if c == '-' && !is_in_word {
            is_negated = !is_negated;
            continue;
        } else if c.is_whitespace() || "!&|()<".contains(c) {
            is_in_word = false;
        } else {
            if std::mem::take(&mut is_negated) {
                limited.push('-');
            }
            is_in_phrase = c == '"';
            is_in_word = !is_in_phrase;
        }
        limited.push(c);
    }
    limited.into()
}
