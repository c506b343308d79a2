//! Words of documents, by which a query that finds nothing is corrected.

use futures_util::TryStreamExt as _;
use sqlx::{query_as, query_scalar};
use uuid::Uuid;

use super::{
    PostgresPool,
    documents::Terms,
    search::{
        begin_search, bind_condition, condition, documents_of_conversation, in_parallel, json_array,
    },
    store_connection::StoreConnection,
};
use crate::{
    domain::{ConversationId, DeptId, MetadataFilter, Role},
    store::{
        SearchQuery, metadata_json, operation_error::OperationError, search::CORRECTION_CHUNK, sql,
    },
    text_analysis::Correction,
};

/// Selects the newest documents. Those of earlier versions, whose words are stems, are omitted.
/// Parameters: those of [`condition!`], $9 limit.
macro_rules! newest {
    ($documents:expr) => {
        concat!(
            "SELECT d.conversation_id, d.seq FROM ",
            $documents,
            " WHERE ",
            condition!(),
            " AND d.config NOT IN ('english', 'simple') ORDER BY d.id DESC LIMIT $9"
        )
    };
}

const OF_USER: &str = newest!("message_documents d");

const OF_CONVERSATION: &str = newest!(documents_of_conversation!());

/// Reads the terms of documents in the given order. Parameters: $1 user, $2 conversations and $3
/// numbers.
const TERMS: &str = "SELECT d.words \
     FROM unnest($2, $3) WITH ORDINALITY AS n (conversation_id, seq, number) \
       JOIN message_documents d ON d.conversation_id = n.conversation_id AND d.seq = n.seq \
     WHERE d.user_id = $1 ORDER BY n.number";

/// Corrects a query that finds nothing, by the words of the newest documents that it searches.
pub(super) async fn correct(
    pool: &PostgresPool,
    search: &SearchQuery,
) -> Result<Option<String>, OperationError> {
    let Some(correction) = Correction::new(search.text.as_str(), pool.languages) else {
        return Ok(None);
    };
    let (permit, mut connection) = begin_search(pool).await?;
    let corrected = examine(&mut connection, search, correction).await;
    permit.end();
    connection
        .release(corrected.map_err(OperationError::of_search))
        .await
}

/// Examines the newest documents that a query searches.
pub(super) async fn examine(
    connection: &mut StoreConnection,
    search: &SearchQuery,
    mut correction: Correction,
) -> Result<Option<String>, OperationError> {
    let statement = if search.conversation_id.is_some() {
        OF_CONVERSATION
    } else {
        OF_USER
    };
    let query =
        bind_condition!(query_as(statement), search).bind(i64::from(Correction::MAX_DOCUMENTS));
    let newest = in_parallel(connection, search, async |connection| {
        Ok(query.fetch_all(connection).await?)
    });
    let newest: Vec<(Uuid, i64)> = newest.await?;
    for chunk in newest.chunks(CORRECTION_CHUNK) {
        let (conversations, seqs): (Vec<Uuid>, Vec<i64>) = chunk.iter().copied().unzip();
        let mut rows = query_scalar(TERMS)
            .bind(search.user_id.as_str())
            .bind(conversations)
            .bind(seqs)
            .fetch(&mut *connection);
        let mut continues = true;
        // All rows are read, so that the connection can be used again.
        while let Some(Terms(document)) = rows.try_next().await? {
            continues = continues && correction.examine(&document);
            tokio::task::consume_budget().await;
        }
        if !continues {
            break;
        }
    }
    Ok(correction.finish())
}
