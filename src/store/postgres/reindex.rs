//! Analysis of messages whose search documents another analysis, or a trigger of an earlier version,
//! has made.

use sqlx::{query, query_as};
use uuid::Uuid;

use super::{
    PostgresPool, connection::PooledConnection, documents::Terms, store_connection::StoreConnection,
};
use crate::{
    domain::ConversationId,
    store::{MessagePlace, Reindexed, operation_error::OperationError},
    text_analysis::{Document, Languages},
};

/// Number of documents of a step.
const BATCH: i64 = 200;

/// Reads the next documents, with the beginning of their texts if they are outdated. The texts are in a
/// subquery: a join could read all messages before these ones, too. Parameters: $1 and $2 the position
/// before them, $3 limit, $4 analyzer.
const NEXT: &str = "SELECT d.conversation_id, d.seq, d.id, CASE WHEN d.config <> $4 THEN coalesce( \
         (SELECT left(m.content, 16384) FROM messages m \
          WHERE m.conversation_id = d.conversation_id AND m.seq = d.seq), '') END \
     FROM message_documents d \
     WHERE (d.conversation_id, d.seq) > ($1, $2) \
     ORDER BY d.conversation_id, d.seq LIMIT $3";

/// Replaces the terms of documents. A document that was removed in the meantime is not created again.
/// Parameters: $1 analyzer, $2, $3, $4 and $5 conversations, numbers, ids and terms.
const UPDATE: &str = "UPDATE message_documents d SET config = $1, words = u.words \
     FROM unnest($2, $3, $4, $5) AS u (conversation_id, seq, id, words) \
     WHERE d.conversation_id = u.conversation_id AND d.seq = u.seq AND d.id = u.id";

/// Removes documents of messages without terms. Parameters: $1, $2 and $3 conversations, numbers and
/// ids.
const REMOVE: &str = "DELETE FROM message_documents d \
     USING unnest($1, $2, $3) AS u (conversation_id, seq, id) \
     WHERE d.conversation_id = u.conversation_id AND d.seq = u.seq AND d.id = u.id";

type NextRow = (Uuid, i64, i64, Option<String>);

/// Analyzes the next documents.
pub(super) async fn reindex(
    pool: &PostgresPool,
    after: Option<MessagePlace>,
) -> Result<Reindexed, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let reindexed = step(&mut connection, pool.languages, after).await;
    connection.release(reindexed).await
}

async fn step(
    connection: &mut StoreConnection,
    languages: Languages,
    after: Option<MessagePlace>,
) -> Result<Reindexed, OperationError> {
    let analyzer = languages.analyzer();
    let (conversation, seq) = after.map_or((Uuid::nil(), 0), |(id, seq)| (id.as_uuid(), seq));
    let rows: Vec<NextRow> = query_as(NEXT)
        .bind(conversation)
        .bind(seq)
        .bind(BATCH)
        .bind(&analyzer)
        .fetch_all(&mut *connection)
        .await?;
    let is_last = i64::try_from(rows.len()).is_ok_and(|count| count < BATCH);
    let next = rows.last().filter(|_| !is_last);
    let next = next.map(|(id, seq, ..)| (ConversationId::from_uuid(*id), *seq));
    let examined = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let (mut updated, mut removed) = (Places::default(), Places::default());
    let mut terms = Vec::new();
    for (conversation, seq, id, text) in rows {
        let Some(text) = text else {
            continue;
        };
        match Document::of(&text, languages) {
            Some(document) => {
                updated.push(conversation, seq, id);
                terms.push(Terms(document));
            }
            None => removed.push(conversation, seq, id),
        }
    }
    let analyzed = updated.ids.len() + removed.ids.len();
    if !updated.ids.is_empty() {
        query(UPDATE)
            .bind(analyzer)
            .bind(updated.conversations)
            .bind(updated.seqs)
            .bind(updated.ids)
            .bind(terms)
            .execute(&mut *connection)
            .await?;
    }
    if !removed.ids.is_empty() {
        query(REMOVE)
            .bind(removed.conversations)
            .bind(removed.seqs)
            .bind(removed.ids)
            .execute(connection)
            .await?;
    }
    Ok(Reindexed {
        examined,
        analyzed: u64::try_from(analyzed).unwrap_or(u64::MAX),
        next,
    })
}

/// Documents, one array for each column.
#[derive(Default)]
struct Places {
    conversations: Vec<Uuid>,
    seqs: Vec<i64>,
    ids: Vec<i64>,
}

impl Places {
    fn push(&mut self, conversation: Uuid, seq: i64, id: i64) {
        self.conversations.push(conversation);
        self.seqs.push(seq);
        self.ids.push(id);
    }
}
