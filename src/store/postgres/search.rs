use std::borrow::Cow;

use serde_json::Value;
use sqlx::{Row as _, postgres::PgRow, query, query_scalar, types::Json};
use uuid::Uuid;

use super::{
    PostgresPool,
    connection::PooledConnection,
    store_connection::StoreConnection,
    tsquery::{ranked_tsquery, tsquery},
};
use crate::{
    domain::{ConversationId, DeptId, MetadataFilter, Role},
    store::{
        SearchPage, SearchQuery, metadata_json,
        operation_error::OperationError,
        rows::limit_with_next,
        search::{Marker, search_rows},
        search_limit::SearchPermit,
        sql,
    },
    text_analysis::{Languages, Query},
};

search_rows!(PgRow, Uuid);

/// Condition on the documents `d` that a search considers. Parameters: $1 user, $2 time from which
/// and $6 until which messages were created, $3 conversation, $4 department, $5 role, $7 key of the
/// metadata and $8 values of that key, each of them or NULL but the user.
///
/// The message is read by a scalar subquery, and last: a subquery of EXISTS could become a hash table
/// of all messages.
macro_rules! condition {
    () => {
        concat!(
            sql::search_condition!(),
            " AND ($2 IS NULL AND $6 IS NULL AND $7 IS NULL OR \
                (SELECT ($2 IS NULL OR m.created_at >= $2) AND ($6 IS NULL OR m.created_at < $6) \
                    AND ($7 IS NULL OR o.metadata ? $7 \
                         AND ($8 IS NULL OR o.metadata -> $7 = ANY($8))) \
                 FROM messages m CROSS JOIN LATERAL (SELECT CASE WHEN m.metadata ? ",
            metadata_json::text_key!(),
            " THEN (m.metadata ->> ",
            metadata_json::text_key!(),
            ")::jsonb ELSE m.metadata END AS metadata) o \
                 WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq))"
        )
    };
}

pub(super) use condition;

/// Selects the page from the documents alone, and then reads the values of its hits.
///
/// Documents that triggers of the previous version have made are searched with a query of their
/// configuration. Long words of that query are cut like those of the documents: PostgreSQL rejects
/// a word that exceeds the length of a lexeme when it is folded to lower case. The operand that is in
/// no message selects the ranking of alternatives, which is that of all other documents.
///
/// The queries are selected by subqueries, because a join with them would prevent parallel scans of the
/// documents, as would an OFFSET 0 behind the conditions.
///
/// `$documents` selects the documents `d`. Parameters: those of [`condition!`], $9 text, $10 rank and
/// $11 place of the last hit of the previous page, $12 limit, $13 query, $14 query for the rank. Those
/// two of the previous page, and the query for the rank, can be NULL.
macro_rules! search {
    ($documents:expr) => {
        concat!(
            "WITH wanted AS MATERIALIZED (
                SELECT websearch_to_tsquery('pg_catalog.english', searched_text($9)) AS english,
                       websearch_to_tsquery('pg_catalog.simple', searched_text($9)) AS simple,
                       $13::tsquery AS query, $14::tsquery AS ranked
            ), hits AS MATERIALIZED (
                SELECT f.* FROM (
                    SELECT d.id, d.conversation_id, d.seq, coalesce(CASE d.config
                        WHEN 'english'
                        THEN ts_rank(d.words, (SELECT w.english || '~'::tsquery FROM wanted w), 1)
                        WHEN 'simple'
                        THEN ts_rank(d.words, (SELECT w.simple || '~'::tsquery FROM wanted w), 1)
                        ELSE ts_rank(d.words, (SELECT w.ranked FROM wanted w), 1)
                        END, 0)::double precision AS rank
                    FROM ",
            $documents,
            " WHERE ",
            condition!(),
            "         AND CASE d.config
                        WHEN 'english' THEN d.words @@ (SELECT w.english FROM wanted w)
                        WHEN 'simple' THEN d.words @@ (SELECT w.simple FROM wanted w)
                        ELSE d.words @@ (SELECT w.query FROM wanted w) END
                ) AS f WHERE $10 IS NULL OR (f.rank, f.id) < ($10, $11)
                ORDER BY f.rank DESC, f.id DESC
                LIMIT $12
            ), shown AS MATERIALIZED (SELECT h.*, ",
            sql::hit_conversation!(),
            " AS shown_in FROM hits h)
            SELECT h.id AS place, h.rank, h.shown_in AS conversation_id, c.title, ",
            sql::message_columns!(),
            "
            FROM shown h
            JOIN messages m ON m.conversation_id = h.conversation_id AND m.seq = h.seq
            LEFT JOIN conversations c ON c.id = h.shown_in
            ORDER BY h.rank DESC, h.id DESC"
        )
    };
}

/// Binds the parameters of [`condition!`] to a query.
macro_rules! bind_condition {
    ($query:expr, $search:ident) => {
        $query
            .bind($search.user_id.as_str())
            .bind($search.created_from)
            .bind($search.conversation_id.map(ConversationId::as_uuid))
            .bind($search.dept_id.as_ref().map(DeptId::as_str))
            .bind($search.role.map(Role::as_str))
            .bind($search.created_until)
            .bind($search.metadata.as_ref().map(MetadataFilter::key))
            .bind(
                $search
                    .metadata
                    .as_ref()
                    .and_then(MetadataFilter::values)
                    .map(json_array),
            )
    };
}

pub(super) use bind_condition;

/// Values of type `jsonb`.
pub(super) fn json_array(values: Vec<Value>) -> Vec<Json<Value>> {
    values.into_iter().map(Json).collect()
}

/// Documents `d` of a conversation. Parameter: $3 conversation.
macro_rules! documents_of_conversation {
    () => {
        concat!(
            "(",
            sql::searched_ranges!(),
            ") AS s CROSS JOIN LATERAL (SELECT d.* FROM message_documents d \
               WHERE d.conversation_id = s.source_id AND d.seq > s.after_seq AND d.seq <= s.upto_seq \
               OFFSET 0) AS d"
        )
    };
}
pub(super) use documents_of_conversation;

/// Searches all messages of a user.
const SEARCH_USER: &str = search!("message_documents d");

/// Searches the messages of a conversation. The others of its user are not read.
const SEARCH_CONVERSATION: &str = search!(documents_of_conversation!());

/// Reads a page of search hits.
pub(super) async fn search(
    pool: &PostgresPool,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let (permit, mut connection) = begin_search(pool).await?;
    let page = find(&mut connection, pool.languages, search).await;
    permit.end();
    connection.release(page).await
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

/// Reads a page of search hits on a connection.
pub(super) async fn find(
    connection: &mut StoreConnection,
    languages: Languages,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let analyzed = Query::parse(search.text.as_str(), languages);
    let statement = if search.conversation_id.is_some() {
        SEARCH_CONVERSATION
    } else {
        SEARCH_USER
    };
    let query = bind_condition!(query(statement), search)
        .bind(limit_negations(search.text.as_str()))
        .bind(search.after.map(|key| key.rank))
        .bind(search.after.map(|key| key.place))
        .bind(limit_with_next(search.limit))
        .bind(tsquery(&analyzed))
        .bind(ranked_tsquery(&analyzed));
    let marker = Marker {
        query: &analyzed,
        languages,
    };
    let decode = |row: &PgRow| decode_hit(row, row.try_get("rank")?, &marker);
    let page = in_parallel(connection, search, async |connection| {
        SearchPage::collect(query.fetch(connection), decode, search.limit).await
    });
    page.await.map_err(OperationError::of_search)
}

/// Whether a user has at least 10,000 documents. Parameter: $1 user.
const HAS_MANY_DOCUMENTS: &str =
    "SELECT EXISTS (SELECT FROM message_documents d WHERE d.user_id = $1 OFFSET 9999)";

/// Executes a statement that reads the documents of a search. For a user with many documents, it is
/// planned for its parameters, so that the server can divide them between two processes. For others,
/// the plan and the start of a process would take longer than the search.
pub(super) async fn in_parallel<T>(
    connection: &mut StoreConnection,
    search: &SearchQuery,
    statement: impl AsyncFnOnce(&mut StoreConnection) -> Result<T, OperationError>,
) -> Result<T, OperationError> {
    if search.conversation_id.is_some() {
        return statement(connection).await;
    }
    let has_many: bool = query_scalar(HAS_MANY_DOCUMENTS)
        .bind(search.user_id.as_str())
        .fetch_one(&mut *connection)
        .await?;
    if !has_many {
        return statement(connection).await;
    }
    connection.begin_parallel_plans().await?;
    let outcome = statement(connection).await;
    let ended = connection.end_parallel_plans().await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
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
