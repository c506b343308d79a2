//! Words of documents, by which a query that finds nothing is corrected.

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, SqliteConnection, query_as, types::Json};

use super::{
    SqlitePool,
    connection::Micros,
    search::{
        LimitedSearcher, bind_condition, condition, conversation_id, document,
        documents_of_conversation, has_metadata,
    },
};
use crate::{
    domain::{DeptId, Role},
    store::{
        SearchQuery, operation_error::OperationError, search::CORRECTION_CHUNK,
        search_limit::SearchLimit, sql,
    },
    text_analysis::{Correction, Languages},
};

/// Selects documents, the newest first. Parameters: those of [`condition!`], $7 whether metadata is
/// read.
macro_rules! newest {
    ($documents:expr) => {
        concat!(
            "SELECT d.id, CASE WHEN $7 THEN (SELECT m.metadata FROM messages m \
                WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq) END FROM ",
            $documents,
            " WHERE ",
            condition!(),
            " ORDER BY d.id DESC"
        )
    };
}

const OF_USER: &str = newest!("message_documents d");

const OF_CONVERSATION: &str = newest!(documents_of_conversation!());

/// Reads documents in the given order. Parameters: $1 user, $2 JSON array of their numbers.
const DOCUMENTS: &str = "SELECT d.terms, CASE WHEN d.terms IS NULL THEN \
       (SELECT substr(m.content, 1, 16384) FROM messages m \
        WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq) END \
     FROM json_each($2) i CROSS JOIN message_documents d ON d.id = i.value \
     WHERE d.user_id = $1 ORDER BY i.key";

/// Corrects a query that finds nothing, by the words of the newest documents that it searches.
pub(super) async fn correct(
    searchers: &SqlitePool,
    limit: &SearchLimit,
    languages: Languages,
    search: &SearchQuery,
) -> Result<Option<String>, OperationError> {
    let Some(correction) = Correction::new(search.text.as_str(), languages) else {
        return Ok(None);
    };
    let mut searcher = LimitedSearcher::acquire(searchers, limit).await?;
    let corrected = examine(&mut searcher.connection, search, correction, languages).await;
    searcher.end(corrected)
}

/// Returns the numbers of the documents that are examined.
async fn newest(
    connection: &mut SqliteConnection,
    search: &SearchQuery,
) -> Result<Vec<i64>, OperationError> {
    let statement = if search.conversation_id.is_some() {
        OF_CONVERSATION
    } else {
        OF_USER
    };
    let mut rows = bind_condition!(query_as(statement), search)
        .bind(search.metadata.is_some())
        .fetch(connection);
    let mut newest = Vec::new();
    while newest.len() < Correction::MAX_DOCUMENTS as usize
        && let Some((id, metadata)) = rows.try_next().await?
    {
        if has_metadata(search, metadata)? {
            newest.push(id);
        }
    }
    Ok(newest)
}

async fn examine(
    connection: &mut SqliteConnection,
    search: &SearchQuery,
    mut correction: Correction,
    languages: Languages,
) -> Result<Option<String>, OperationError> {
    // The number of a removed document can be used again.
    let mut snapshot = connection.begin().await?;
    let newest = newest(&mut snapshot, search).await?;
    for chunk in newest.chunks(CORRECTION_CHUNK) {
        let mut rows = query_as(DOCUMENTS)
            .bind(search.user_id.as_str())
            .bind(Json(chunk))
            .fetch(&mut *snapshot);
        let mut continues = true;
        while let Some((terms, text)) = rows.try_next().await? {
            let document = document(terms, text, languages);
            continues = document.is_none_or(|document| correction.examine(&document));
            if !continues {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(rows);
        if !continues {
            break;
        }
    }
    snapshot.commit().await?;
    Ok(correction.finish())
}
