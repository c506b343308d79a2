//! Insertion of messages, column by column.

use sqlx::{SqliteConnection, query, types::Json};

use super::connection::Micros;
use crate::{
    domain::{AuthorName, ConversationId, NewMessage},
    store::{metadata_json, operation_error::OperationError},
};

/// Statements that insert into the tables of a schema: that of the store, or that of the spool
/// file in which an import collects its messages. [`insert`] binds their parameters.
#[derive(Clone, Copy)]
pub(super) struct Insertion {
    pub(super) message: &'static str,
    pub(super) context: &'static str,
    pub(super) blob: &'static str,
}

macro_rules! insertion_into {
    ($schema:literal) => {
        $crate::store::sqlite::columns::Insertion {
            message: concat!(
                "INSERT INTO ",
                $schema,
                ".messages (conversation_id, seq, ",
                $crate::store::sql::common_columns!(""),
                ", ",
                $crate::store::sql::own_message_columns!(""),
                ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
            ),
            context: concat!(
                "INSERT INTO ",
                $schema,
                ".message_contexts (conversation_id, seq, position, ",
                $crate::store::sql::context_columns!(""),
                ") VALUES ($1, $2, $3, $4, $5, $6, $7)"
            ),
            blob: concat!(
                "INSERT INTO ",
                $schema,
                ".message_blobs (conversation_id, seq, position, data) VALUES ($1, $2, $3, $4)"
            ),
        }
    };
}
pub(super) use insertion_into;

/// Inserts a message, its contexts and the data of its blobs. `at` is the time of a message that has none.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    into: Insertion,
    conversation: ConversationId,
    seq: i64,
    message: &NewMessage,
    at: Micros,
) -> Result<(), OperationError> {
    query(into.message)
        .bind(conversation.as_uuid().hyphenated())
        .bind(seq)
        .bind(message.id.as_uuid().hyphenated())
        .bind(message.created_at.map_or(at, Micros::from))
        .bind(message.metadata.as_ref().map(metadata_json::bindable))
        .bind(message.role.as_str())
        .bind(message.content.as_str())
        .bind(message.tokens_used)
        .bind(message.latency_ms)
        .bind(message.name.as_ref().map(AuthorName::as_str))
        .bind((!message.parts.is_empty()).then_some(Json(&message.parts)))
        .bind(message.token_count)
        .bind(message.pinned)
        .bind(message.redacted)
        .execute(&mut *connection)
        .await?;
    for (position, context) in (0_i64..).zip(&message.contexts) {
        query(into.context)
            .bind(conversation.as_uuid().hyphenated())
            .bind(seq)
            .bind(position)
            .bind(context.doc_id.as_str())
            .bind(context.content.as_str())
            .bind(context.score)
            .bind(context.metadata.as_ref().map(metadata_json::bindable))
            .execute(&mut *connection)
            .await?;
    }
    for (position, part) in (0_i64..).zip(&message.parts) {
        if let Some(data) = part.as_blob().and_then(|blob| blob.data.as_ref()) {
            query(into.blob)
                .bind(conversation.as_uuid().hyphenated())
                .bind(seq)
                .bind(position)
                .bind(&data[..])
                .execute(&mut *connection)
                .await?;
        }
    }
    Ok(())
}
