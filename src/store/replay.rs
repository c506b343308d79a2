//! Recognition of retries, for both databases.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::{Appended, RequestIdentity, ReusedKey, StoreError, Truncated, rows::RequestRow};
use crate::domain::{Message, NewMessage};

/// New entry of the requests ledger.
pub(super) struct RequestEntry<'a> {
    pub(super) request: &'a RequestIdentity,
    /// First number that the request is about.
    pub(super) first_seq: i64,
    /// Last number of the conversation after the request.
    pub(super) last_seq: i64,
    /// Number of messages that a truncation removed; `None` for other requests.
    pub(super) removed: Option<i64>,
    pub(super) at: DateTime<Utc>,
}

/// Result of comparing the ids of a batch with the stored messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IdConflict {
    /// No chosen id is in use.
    None,
    /// The same batch is stored in this conversation: the save is a retry.
    Replay,
    /// A chosen id is in use by another message of the conversation, or occurs twice in the batch.
    Reused,
}

/// Returns the first and last number of the stored messages of a batch if they are
/// complete and consecutive, as one save stores them. `found` are the numbers of the
/// messages that this conversation has, in ascending order.
pub(super) fn consecutive_range(batch: &[NewMessage], found: &[i64]) -> Option<(i64, i64)> {
    let (first, last) = (*found.first()?, *found.last()?);
    let length = i64::try_from(batch.len()).ok()?;
    (found.len() == batch.len() && last - first + 1 == length).then_some((first, last))
}

/// Compares a batch with the messages that are stored in its [`consecutive_range`], with
/// their contexts. `is_in_use` means that some id of the batch is in use.
/// `with_generated` treats generated ids as if the caller had chosen them.
pub(super) fn compare(
    batch: &[NewMessage],
    stored: &[Message],
    is_in_use: bool,
    with_generated: bool,
) -> IdConflict {
    let is_replay = batch.len() == stored.len()
        && batch
            .iter()
            .zip(stored)
            .all(|(new, stored)| (with_generated || new.id_chosen) && new.is_saved_as(stored));
    if is_replay {
        return IdConflict::Replay;
    }
    let mut ids = HashSet::new();
    let has_duplicate = batch.iter().any(|message| !ids.insert(message.id));
    if is_in_use || has_duplicate {
        IdConflict::Reused
    } else {
        IdConflict::None
    }
}

/// Rejects a known idempotency key that is used for another request.
pub(super) fn check_digest(
    known: &RequestRow,
    request: &RequestIdentity,
) -> Result<(), StoreError> {
    if known.digest == request.digest.as_bytes() {
        Ok(())
    } else {
        Err(StoreError::AlreadyExists(ReusedKey::RequestId))
    }
}

/// Returns the outcome of a save that was recognized as a retry by its message ids.
pub(super) fn replayed_save(mut messages: Vec<Message>) -> Appended {
    for message in &mut messages {
        message.contexts.clear();
    }
    Appended::Replayed {
        last_seq: messages.last().map_or(0, |message| message.seq),
        messages,
    }
}

/// Returns the outcome of a truncation that was recognized as a retry by its idempotency key.
pub(super) fn replayed_truncation(
    known: &RequestRow,
    request: &RequestIdentity,
) -> Result<Truncated, StoreError> {
    check_digest(known, request)?;
    Ok(Truncated {
        removed: known.removed.unwrap_or_default(),
        last_seq: known.last_seq,
    })
}

/// Returns the outcome of a compaction that was recognized as a retry by its idempotency key.
pub(super) fn replayed_compaction(
    known: &RequestRow,
    request: &RequestIdentity,
) -> Result<i64, StoreError> {
    check_digest(known, request)?;
    Ok(known.last_seq)
}

/// Rejects a write that expects the conversation to end at another number.
pub(super) fn check_last_seq(expected: Option<i64>, current_seq: i64) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != current_seq => Err(StoreError::Conflict { current_seq }),
        _ => Ok(()),
    }
}

/// Defines `find_request`, `insert_request`, `find_replay` and `compare_ids` for a kind of
/// connection, the function that converts a UUID to the type of a key column, and the type of a
/// time column. The module that uses it defines `find_messages`, which locates messages of a
/// conversation by id.
/// They are a macro for the same reason as [`reads`](super::reads).
macro_rules! replays {
    ($connection:ty, $key:path, $time:ty) => {
        /// Adds an entry to the requests ledger.
        pub(super) async fn insert_request(
            connection: &mut $connection,
            conversation: $crate::domain::ConversationId,
            entry: &$crate::store::replay::RequestEntry<'_>,
        ) -> Result<(), OperationError> {
            sqlx::query($crate::store::sql::INSERT_REQUEST)
                .bind($key(conversation.as_uuid()))
                .bind(entry.request.id.as_str())
                .bind(entry.request.digest.as_bytes())
                .bind(entry.first_seq)
                .bind(entry.last_seq)
                .bind(entry.removed)
                .bind(<$time>::from(entry.at))
                .execute(connection)
                .await?;
            Ok(())
        }

        /// Reads the entry of an idempotency key in the requests ledger.
        pub(super) async fn find_request(
            connection: &mut $connection,
            conversation: $crate::domain::ConversationId,
            request: &$crate::store::RequestIdentity,
        ) -> Result<Option<$crate::store::rows::RequestRow>, OperationError> {
            Ok(sqlx::query_as($crate::store::sql::REQUEST)
                .bind($key(conversation.as_uuid()))
                .bind(request.id.as_str())
                .fetch_optional(connection)
                .await?)
        }

        /// Returns the outcome of an earlier save of the same batch. `None` if there was none
        /// and the save passes the checks that [`Append`] lists.
        async fn find_replay(
            connection: &mut $connection,
            append: &Append,
            conversation: &$crate::domain::Conversation,
        ) -> Result<Option<Appended>, OperationError> {
            let id = conversation.id;
            if let Some(request) = &append.request
                && let Some(known) = find_request(connection, id, request).await?
            {
                replay::check_digest(&known, request)?;
                let (first_seq, last_seq) = (known.first_seq, known.last_seq);
                let messages =
                    history::read_range(connection, id, first_seq, last_seq, false).await?;
                return Ok(Some(Appended::Replayed { last_seq, messages }));
            }
            let (conflict, messages) = compare_ids(connection, append, false).await?;
            if conflict == IdConflict::Replay {
                return Ok(Some(replay::replayed_save(messages)));
            }
            replay::check_last_seq(append.expected_last_seq, conversation.last_seq)?;
            match conflict {
                IdConflict::Reused => {
                    let reused = $crate::store::ReusedKey::MessageId;
                    Err($crate::store::StoreError::AlreadyExists(reused).into())
                }
                IdConflict::None | IdConflict::Replay => Ok(None),
            }
        }

        /// Compares the batch's ids with the stored messages, and returns the messages of this
        /// conversation that a save of this batch has stored. `with_generated` treats generated
        /// ids as if the caller had chosen them.
        async fn compare_ids(
            connection: &mut $connection,
            append: &Append,
            with_generated: bool,
        ) -> Result<(IdConflict, Vec<$crate::domain::Message>), OperationError> {
            let batch = &append.messages;
            let ids: Vec<uuid::Uuid> = batch
                .iter()
                .filter(|message| with_generated || message.id_chosen)
                .map(|message| message.id.as_uuid())
                .collect();
            let id = append.conversation.id;
            let in_use = find_messages(connection, id, ids).await?;
            let own: Vec<i64> = in_use
                .iter()
                .filter(|(conversation, _)| *conversation == id.as_uuid())
                .map(|(_, seq)| *seq)
                .collect();
            let messages = match replay::consecutive_range(batch, &own) {
                Some((first, last)) => {
                    history::read_range(connection, id, first, last, true).await?
                }
                None => Vec::new(),
            };
            let conflict = replay::compare(batch, &messages, !in_use.is_empty(), with_generated);
            Ok((conflict, messages))
        }
    };
}
pub(super) use replays;
