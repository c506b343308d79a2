//! Insertion of messages, column by column.

use sqlx::{Sqlite, SqliteConnection, query, query::Query, sqlite::SqliteArguments, types::Json};

use super::connection::Micros;
use crate::{
    domain::{AuthorName, ConversationId, NewMessage, Part},
    store::{metadata_json, operation_error::OperationError},
};

/// Statements that insert into the tables of a schema: that of the store, or that of the spool
/// file in which an import collects its messages. [`insert`] binds their parameters.
#[derive(Clone, Copy)]
pub(super) struct Insertion {
    pub(super) message: &'static str,
    /// The statement without its values.
    pub(super) message_columns: &'static str,
    pub(super) context: &'static str,
    pub(super) blob: &'static str,
}

macro_rules! insert_message {
    ($schema:literal) => {
        concat!(
            "INSERT INTO ",
            $schema,
            ".messages (conversation_id, seq, ",
            $crate::store::sql::common_columns!(""),
            ", ",
            $crate::store::sql::own_message_columns!(""),
            ")"
        )
    };
}
pub(super) use insert_message;

macro_rules! insertion_into {
    ($schema:literal) => {
        $crate::store::sqlite::columns::Insertion {
            message: concat!(
                $crate::store::sqlite::columns::insert_message!($schema),
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
            ),
            message_columns: $crate::store::sqlite::columns::insert_message!($schema),
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

/// Number of the columns of a message that [`bind_columns`] binds.
pub(super) const BOUND_COLUMNS: usize = 13;

/// Binds the columns of a message after the id of its conversation, in the order of [`Insertion`].
/// `at` is the time of a message that has none.
pub(super) fn bind_columns<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    seq: i64,
    message: &'q NewMessage,
    at: Micros,
) -> Query<'q, Sqlite, SqliteArguments> {
    query
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
}

/// Whether a message has contexts or data of blobs, which are stored in other tables.
pub(super) fn has_further_rows(message: &NewMessage) -> bool {
    let mut blobs = message.parts.iter().filter_map(Part::as_blob);
    !message.contexts.is_empty() || blobs.any(|blob| blob.data.is_some())
}

/// Inserts a message, its contexts and the data of its blobs. `at` is the time of a message that has none.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    into: Insertion,
    conversation: ConversationId,
    seq: i64,
    message: &NewMessage,
    at: Micros,
) -> Result<(), OperationError> {
    let insertion = query(into.message).bind(conversation.as_uuid().hyphenated());
    bind_columns(insertion, seq, message, at)
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
