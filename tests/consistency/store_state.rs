//! State of the store at the end of a round, read on a connection of the test.

use std::collections::HashMap;

use sqlx::{Connection as _, PgConnection};

use crate::history::{FinalState, History, Moment, Row, StoredConversation, Token, WriteNumber};

/// A conversation's own messages, and those of the ranges in its lineage.
const MESSAGES: &str = "
    SELECT c.id::text, m.seq, m.content
    FROM conversations c JOIN messages m ON m.conversation_id = c.id AND m.seq > c.own_after
    WHERE c.id::text = ANY ($1)
    UNION ALL
    SELECT l.conversation_id::text, m.seq, m.content
    FROM lineage l JOIN messages m
        ON m.conversation_id = l.source_id AND m.seq > l.after_seq AND m.seq <= l.upto_seq
    WHERE l.conversation_id::text = ANY ($1)
    ORDER BY 1, 2";

/// Reads the conversations of a history in one transaction.
pub(crate) async fn read(url: &str, history: &History, moment: Moment) -> FinalState {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let mut transaction = connection.begin_with(snapshot).await.unwrap();
    let ids = &history.conversations;
    let mut rows: HashMap<String, Vec<Row>> = HashMap::new();
    let found: Vec<(String, i64, String)> = sqlx::query_as(MESSAGES)
        .bind(ids)
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    for (id, seq, text) in found {
        let token = Token::parse(&text);
        rows.entry(id).or_default().push(Row { seq, token });
    }
    let mut last_seqs: HashMap<String, i64> =
        sqlx::query_as("SELECT id::text, last_seq FROM conversations WHERE id::text = ANY ($1)")
            .bind(ids)
            .fetch_all(&mut *transaction)
            .await
            .unwrap()
            .into_iter()
            .collect();
    let removals: Vec<(String, i64)> = sqlx::query_as(
        "SELECT request_id, last_seq FROM requests
         WHERE removed IS NOT NULL AND conversation_id::text = ANY ($1)",
    )
    .bind(ids)
    .fetch_all(&mut *transaction)
    .await
    .unwrap();
    let conversations = ids.iter().enumerate().filter_map(|(conversation, id)| {
        Some(StoredConversation {
            conversation,
            last_seq: last_seqs.remove(id)?,
            rows: rows.remove(id).unwrap_or_default(),
        })
    });
    FinalState {
        moment,
        conversations: conversations.collect(),
        removals: removals
            .into_iter()
            .filter_map(|(key, last_seq)| Some((number(&key)?, last_seq)))
            .collect(),
    }
}

fn number(request_id: &str) -> Option<WriteNumber> {
    request_id.strip_prefix("removal-")?.parse().ok()
}
