use sqlx::SqliteConnection;
use uuid::{Uuid, fmt::Hyphenated};

use super::{SqlitePool, checkpoints::reject_checkpoints, connection, effects::apply_effects};
use crate::store::redactions::redactions;

redactions!(SqliteConnection, Uuid::hyphenated, Hyphenated);

/// Reads the titles of conversations. Parameter: $1 their ids as a JSON array.
const TITLES: &str = "SELECT c.id, c.title, c.title_seq FROM conversations c \
    WHERE c.id IN (SELECT value FROM json_each($1))";

/// Finds the conversations that contain any of the messages.
pub(super) async fn containing(
    readers: &SqlitePool,
    conversation: &ConversationRef,
    seqs: &[i64],
) -> Result<Vec<ConversationId>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    let located = locate(&mut reader, conversation, seqs).await?;
    Ok(located.conversation_ids())
}

/// Redacts messages of a conversation.
pub(super) async fn redact(
    writer: &SqlitePool,
    conversation: &ConversationRef,
    seqs: &[i64],
) -> Result<Redacted, OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let redacted = locate_and_redact(&mut transaction, conversation, seqs).await;
    connection::end(transaction, redacted).await
}

async fn locate_and_redact(
    connection: &mut SqliteConnection,
    conversation: &ConversationRef,
    seqs: &[i64],
) -> Result<Redacted, OperationError> {
    let located = locate(connection, conversation, seqs).await?;
    reject_checkpoints(connection, located.conversations.keys().copied()).await?;
    let titles = read_titles(connection, &located).await?;
    apply_effects(connection, &located.effects(&titles)).await?;
    erase(connection, &located).await?;
    Ok(located.into_redacted())
}

async fn read_titles(
    connection: &mut SqliteConnection,
    located: &LocatedMessages,
) -> Result<Titles, OperationError> {
    let ids = located.conversations.keys();
    let ids: serde_json::Value = ids.map(|id| id.hyphenated().to_string()).collect();
    let titles: Vec<(Hyphenated, Option<String>, Option<i64>)> = query_as(TITLES)
        .bind(ids.to_string())
        .fetch_all(connection)
        .await?;
    let titles = titles.into_iter();
    Ok(titles
        .map(|(id, title, seq)| (id.into_uuid(), (title, seq)))
        .collect())
}
