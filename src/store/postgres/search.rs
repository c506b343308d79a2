use std::borrow::Cow;

use sqlx::{PgConnection, postgres::PgRow, query};
use uuid::Uuid;

use super::{Pool, connection::Lease};
use crate::{
    domain::{ConversationId, DeptId, Role},
    store::{
        SearchKey, SearchPage, SearchQuery, failure::OperationError, search::search_rows, sql,
    },
};

search_rows!(PgRow, Uuid);

/// The page first, from the documents alone, and then what there is to show of it.
/// The functions stand in the schema. Words that were made with one configuration
/// are searched for with a query of the same.
///
/// $1 user, $2 text, $3 conversation, $4 department and $5 role or NULL, $6 and $7
/// rank and place of the hit before, $8 limit.
const SEARCH: &str = concat!(
    "WITH wanted AS MATERIALIZED (
        SELECT websearch_to_tsquery('pg_catalog.english', $2) AS english,
               websearch_to_tsquery('pg_catalog.simple', $2) AS simple
    ), hits AS MATERIALIZED (
        SELECT d.id, d.conversation_id, d.seq, d.config, w.query, r.rank
        FROM message_documents d
        CROSS JOIN LATERAL (
            SELECT CASE d.config WHEN 'simple' THEN (SELECT simple FROM wanted)
                                 ELSE (SELECT english FROM wanted) END AS query
            OFFSET 0
        ) w
        CROSS JOIN LATERAL (
            SELECT ts_rank(d.words, w.query, 1)::double precision AS rank
        ) r
        WHERE ",
    sql::searched!(),
    "     AND d.words @@ w.query
          AND (r.rank, d.id) < ($6, $7)
        ORDER BY r.rank DESC, d.id DESC
        LIMIT $8
    ), shown AS MATERIALIZED (SELECT h.*, ",
    sql::shown_in!(),
    " AS shown_in FROM hits h)
    SELECT h.id AS place, h.rank, h.shown_in AS conversation_id, c.title, ",
    sql::message_columns!(),
    ",
        ts_headline(
            CASE h.config WHEN 'simple' THEN 'pg_catalog.simple' ELSE 'pg_catalog.english'
            END::regconfig,
            translate(searched_text(m.content), '⟦⟧', '[]'), h.query,
            'StartSel=⟦, StopSel=⟧, HighlightAll=true'
        ) AS marked
    FROM shown h
    JOIN messages m ON m.conversation_id = h.conversation_id AND m.seq = h.seq
    LEFT JOIN conversations c ON c.id = h.shown_in
    ORDER BY h.rank DESC, h.id DESC"
);

pub(super) async fn search(
    pool: &Pool,
    wanted: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let rows = find(&mut lease, wanted).await;
    let hits = lease
        .release(rows)?
        .iter()
        .map(hit)
        .collect::<Result<_, _>>()?;
    Ok(SearchPage::of(hits, wanted.limit))
}

async fn find(
    connection: &mut PgConnection,
    wanted: &SearchQuery,
) -> Result<Vec<PgRow>, OperationError> {
    let SearchKey { rank, place } = wanted.after.unwrap_or(SearchKey::START);
    Ok(query(SEARCH)
        .bind(wanted.user_id.as_str())
        .bind(bearable(wanted.text.as_str()))
        .bind(wanted.conversation_id.map(ConversationId::as_uuid))
        .bind(wanted.dept_id.as_ref().map(DeptId::as_str))
        .bind(wanted.role.map(Role::as_str))
        .bind(rank)
        .bind(place)
        // One more tells whether there is a next page.
        .bind(i64::from(wanted.limit) + 1)
        .fetch_all(connection)
        .await?)
}

/// The same query, with no more than one negation in front of each operand. PostgreSQL
/// fails at 32 in a row, and a ruled line that was pasted into a query has more.
fn bearable(text: &str) -> Cow<'_, str> {
    const FEW: usize = 16;
    if text.matches('-').count() <= FEW {
        return text.into();
    }
    let mut bearable = String::with_capacity(text.len());
    let (mut negated, mut in_word, mut in_phrase) = (false, false, false);
    for c in text.chars() {
        if in_phrase {
            in_phrase = c != '"';
        } else if c == '-' && !in_word {
            negated = !negated;
            continue;
        } else if c.is_whitespace() || "!&|()<".contains(c) {
            in_word = false;
        } else {
            if std::mem::take(&mut negated) {
                bearable.push('-');
            }
            in_phrase = c == '"';
            in_word = !in_phrase;
        }
        bearable.push(c);
    }
    bearable.into()
}
