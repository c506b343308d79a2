use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};
use sqlx::{
    Connection as _, Row as _, Sqlite, SqliteConnection, pool::PoolConnection, query, query_as,
    sqlite::SqliteRow, types::Json,
};
use uuid::fmt::Hyphenated;

use super::{
    SqlitePool,
    connection::{self, Micros},
};
use crate::{
    domain::{DeptId, Role},
    store::{
        SearchKey, SearchPage, SearchQuery, metadata_json,
        operation_error::OperationError,
        pool::Pooled,
        search::{Marker, search_rows},
        search_limit::{SEARCH_TIME, SearchLimit, SearchPermit},
        sql,
    },
    text_analysis::{self, Document, Languages, Query},
};

search_rows!(SqliteRow, Hyphenated);

/// Condition on the documents `d` that a search considers. Parameters: $1 user, $2 time from which
/// and $6 until which messages were created, $3 conversation, $4 department, $5 role, each of them or
/// NULL but the user.
macro_rules! condition {
    () => {
        concat!(
            sql::search_condition!(),
            " AND ($2 IS NULL AND $6 IS NULL OR EXISTS (SELECT 1 FROM messages m \
                   WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq \
                     AND ($2 IS NULL OR m.created_at >= $2) AND ($6 IS NULL OR m.created_at < $6))) \
              AND NOT EXISTS (SELECT 1 FROM pending_removals p WHERE p.source_id = d.conversation_id \
                              AND p.after_seq < d.seq AND p.upto_seq >= d.seq)"
        )
    };
}

pub(super) use condition;

/// Binds the parameters of [`condition!`] to a query.
macro_rules! bind_condition {
    ($query:expr, $search:ident) => {
        $query
            .bind($search.user_id.as_str())
            .bind($search.created_from.map(Micros::from))
            .bind(conversation_id($search))
            .bind($search.dept_id.as_ref().map(DeptId::as_str))
            .bind($search.role.map(Role::as_str))
            .bind($search.created_until.map(Micros::from))
    };
}

pub(super) use bind_condition;

/// Documents `d` of a conversation. Parameter: $3 conversation.
macro_rules! documents_of_conversation {
    () => {
        concat!(
            "(",
            sql::searched_ranges!(),
            ") AS s CROSS JOIN message_documents d ON d.conversation_id = s.source_id \
               AND d.seq > s.after_seq AND d.seq <= s.upto_seq"
        )
    };
}
pub(super) use documents_of_conversation;

/// Reads the terms of documents `d`, and the texts of those that have none yet.
///
/// `$documents` selects them. Parameters: those of [`condition!`], $7 whether metadata is read, $8 bytes
/// that the terms of each match contain, or NULL.
macro_rules! candidates {
    ($documents:expr) => {
        concat!(
            "SELECT d.id, d.terms, CASE WHEN d.terms IS NULL THEN \
               (SELECT substr(m.content, 1, 16384) FROM messages m \
                WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq) END, CASE WHEN $7 THEN \
               (SELECT m.metadata FROM messages m \
                WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq) END \
             FROM ",
            $documents,
            " WHERE ",
            condition!(),
            " AND ($8 IS NULL OR d.terms IS NULL OR instr(d.terms, $8) > 0)"
        )
    };
}

/// Reads the documents of a user.
const OF_USER: &str = candidates!("message_documents d");

/// Reads the documents of a conversation. The others of its user are not read.
const OF_CONVERSATION: &str = candidates!(documents_of_conversation!());

/// Reads the hits of a page. Parameters: $1 user, $2 JSON array of their documents, $3 conversation or NULL.
const HITS: &str = concat!(
    "WITH hits AS MATERIALIZED (
        SELECT i.key AS number, d.id, d.conversation_id, d.seq
        FROM json_each($2) i CROSS JOIN message_documents d ON d.id = i.value
        WHERE d.user_id = $1
    ), shown AS MATERIALIZED (SELECT h.*, ",
    sql::hit_conversation!(),
    " AS shown_in FROM hits h)
    SELECT h.number, h.id AS place, h.shown_in AS conversation_id, c.title, ",
    sql::message_columns!(),
    " FROM shown h
    CROSS JOIN messages m ON m.conversation_id = h.conversation_id AND m.seq = h.seq
    LEFT JOIN conversations c ON c.id = h.shown_in
    ORDER BY h.number"
);

/// Number of instructions of SQLite's virtual machine between two checks of the limit.
const STEPS_PER_CHECK: i32 = 1_000;

/// Time after which a search lets other tasks of its thread run.
const MAX_POLL: Duration = Duration::from_millis(1);

/// Reads a page of search hits.
pub(super) async fn search(
    searchers: &SqlitePool,
    limit: &SearchLimit,
    languages: Languages,
    search: &SearchQuery,
) -> Result<SearchPage, OperationError> {
    let analyzed = Query::parse(search.text.as_str(), languages);
    if analyzed.alternatives.is_empty() {
        return Ok(SearchPage::EMPTY);
    }
    let mut searcher = LimitedSearcher::acquire(searchers, limit).await?;
    let found = find(&mut searcher.connection, search, &analyzed, languages).await;
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

/// Reads the page in a transaction, so that both statements see the same documents: the number of a
/// removed document can be used again.
async fn find(
    connection: &mut SqliteConnection,
    search: &SearchQuery,
    analyzed: &Query,
    languages: Languages,
) -> Result<SearchPage, OperationError> {
    let mut snapshot = connection.begin().await?;
    let matches = find_matches(&mut snapshot, search, analyzed, languages).await?;
    let (places, ranks): (Vec<i64>, Vec<f64>) =
        matches.iter().map(|key| (key.place, key.rank)).unzip();
    let rows = query(HITS)
        .bind(search.user_id.as_str())
        .bind(Json(places))
        .bind(conversation_id(search))
        .fetch(&mut *snapshot);
    let marker = Marker {
        query: analyzed,
        languages,
    };
    let decode = |row: &SqliteRow| {
        let number: i64 = row.try_get("number")?;
        let rank = usize::try_from(number)
            .ok()
            .and_then(|number| ranks.get(number));
        decode_hit(row, rank.copied().unwrap_or_default(), &marker)
    };
    let page = SearchPage::collect(rows, decode, search.limit).await?;
    snapshot.commit().await?;
    Ok(page)
}

/// Finds the matches of the page, and the one after it.
async fn find_matches(
    connection: &mut SqliteConnection,
    search: &SearchQuery,
    analyzed: &Query,
    languages: Languages,
) -> Result<Vec<SearchKey>, OperationError> {
    let statement = if search.conversation_id.is_some() {
        OF_CONVERSATION
    } else {
        OF_USER
    };
    let mut candidates = bind_condition!(query_as(statement), search)
        .bind(search.metadata.is_some())
        .bind(analyzed.common_term().map(str::as_bytes))
        .fetch(connection);
    let forms = analyzed.ranked_forms();
    let after = search.after.unwrap_or(SearchKey::FIRST);
    let mut matches = Vec::new();
    let mut yielded = Instant::now();
    while let Some((place, terms, text, metadata)) = candidates.try_next().await? {
        // The rows are ready sooner than they are examined, and turns need the thread as well.
        if yielded.elapsed() > MAX_POLL {
            tokio::task::yield_now().await;
            yielded = Instant::now();
        }
        if !has_metadata(search, metadata)? {
            continue;
        }
        let document = document(terms, text, languages);
        let Some(document) = document.filter(|document| text_analysis::matches(analyzed, document))
        else {
            continue;
        };
        let rank = f64::from(text_analysis::rank(&forms, &document));
        if (rank, place) < (after.rank, after.place) {
            matches.push(SearchKey { rank, place });
        }
    }
    matches.sort_by(|a, b| b.rank.total_cmp(&a.rank).then(b.place.cmp(&a.place)));
    matches.truncate(search.limit as usize + 1);
    Ok(matches)
}

/// Returns whether stored metadata meets the condition of a search.
pub(super) fn has_metadata(
    search: &SearchQuery,
    metadata: Option<Json<Map<String, Value>>>,
) -> Result<bool, OperationError> {
    let Some(filter) = &search.metadata else {
        return Ok(true);
    };
    let metadata = metadata.map(|Json(object)| metadata_json::decode(object));
    let metadata = metadata.transpose()?;
    Ok(metadata.is_some_and(|metadata| filter.matches(&metadata)))
}

/// Returns the document of a message by its stored terms, or else by its text.
pub(super) fn document(
    terms: Option<Vec<u8>>,
    text: Option<String>,
    languages: Languages,
) -> Option<Document> {
    match terms {
        Some(terms) => Some(Document::from_bytes(terms)),
        None => text.and_then(|text| Document::of(&text, languages)),
    }
}

pub(super) fn conversation_id(search: &SearchQuery) -> Option<Hyphenated> {
    search.conversation_id.map(|id| id.as_uuid().hyphenated())
}
