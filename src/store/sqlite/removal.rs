use sqlx::query;

use super::{
    Pool,
    append::{Note, add_note, find_request},
    connection::{self, Micros},
    conversations,
};
use crate::{
    domain::ConversationRef,
    store::{Truncated, Truncation, failure::Trouble, replay},
};

const DELETE: &str = "DELETE FROM conversations WHERE id = $1";

const TRUNCATE: &str = "DELETE FROM messages WHERE conversation_id = $1 AND seq > $2";

const TOUCH: &str =
    "UPDATE conversations SET updated_at = max(updated_at, $2), activity = $3 WHERE id = $1";

pub(super) async fn delete(writer: &Pool, conversation: &ConversationRef) -> Result<(), Trouble> {
    let mut transaction = connection::begin(writer).await?;
    let found = conversations::find_one(&mut transaction, conversation).await?;
    query(DELETE)
        .bind(found.id.as_uuid().hyphenated())
        .execute(&mut *transaction)
        .await?;
    connection::commit(transaction).await
}

pub(super) async fn truncate(writer: &Pool, truncation: &Truncation) -> Result<Truncated, Trouble> {
    let mut transaction = connection::begin(writer).await?;
    let found = conversations::find_one(&mut transaction, &truncation.conversation).await?;
    let last_seq = found.last_seq;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(&mut transaction, found.id, request).await?
    {
        return Ok(replay::of_truncation(&known, request)?);
    }
    replay::ends_at(truncation.expected_last_seq, last_seq)?;
    let id = found.id.as_uuid().hyphenated();
    let removed = query(TRUNCATE)
        .bind(id)
        .bind(truncation.after_seq)
        .execute(&mut *transaction)
        .await?
        .rows_affected();
    let removed = i64::try_from(removed).unwrap_or(i64::MAX);
    let at = Micros::from(truncation.at);
    let activity = connection::next_activity(&mut transaction).await?;
    query(TOUCH)
        .bind(id)
        .bind(at)
        .bind(activity)
        .execute(&mut *transaction)
        .await?;
    if let Some(request) = &truncation.request {
        let note = Note {
            request,
            first_seq: truncation.after_seq.saturating_add(1),
            last_seq,
            removed: Some(removed),
            at,
        };
        add_note(&mut transaction, found.id, &note).await?;
    }
    connection::commit(transaction).await?;
    Ok(Truncated { removed, last_seq })
}
