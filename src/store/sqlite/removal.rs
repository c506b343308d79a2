use sqlx::SqliteConnection;
use uuid::fmt::Hyphenated;

use super::{
    Pool,
    append::{Note, add_note, find_request},
    connection::{self, Micros},
    conversations,
};
use crate::{
    domain::ConversationRef,
    store::{Truncated, Truncation, lineage::lineage, replay},
};

lineage!(SqliteConnection, Hyphenated);

const DELETE: &str = "DELETE FROM conversations WHERE id = $1";

const OWN_AFTER: &str = "SELECT own_after FROM conversations WHERE id = $1";

const TOUCH: &str =
    "UPDATE conversations SET updated_at = max(updated_at, $2), activity = $3 WHERE id = $1";

pub(super) async fn delete(
    writer: &Pool,
    conversation: &ConversationRef,
) -> Result<(), OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let found = conversations::find_one(&mut transaction, conversation).await?;
    let id = found.id.as_uuid().hyphenated();
    let shown = lineage(&mut transaction, id).await?;
    query(DELETE).bind(id).execute(&mut *transaction).await?;
    release(&mut transaction, (id, 0, i64::MAX)).await?;
    for range in shown.into_iter().filter(|(source, ..)| *source != id) {
        release(&mut transaction, range).await?;
    }
    connection::commit(transaction).await
}

pub(super) async fn truncate(
    writer: &Pool,
    truncation: &Truncation,
) -> Result<Truncated, OperationError> {
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
    let own_after: i64 = query_scalar(OWN_AFTER)
        .bind(id)
        .fetch_one(&mut *transaction)
        .await?;
    let end = End {
        conversation: id,
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    let removed = end.cut(&mut transaction).await?;
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
