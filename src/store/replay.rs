use std::collections::HashSet;

use super::{Appended, Request, Reused, StoreError, Truncated, rows::RequestRow};
use crate::domain::{Message, NewMessage};

/// How the ids of a batch stand to the messages that are stored under them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IdConflict {
    /// No chosen id is taken.
    Free,
    /// The very batch is stored, in this conversation.
    Replay,
    /// A chosen id is taken, or chosen twice.
    Reused,
}

/// The numbers between which the messages of a batch stand, when they stand as
/// one save left them: all of them in a row. `found` are the numbers of those
/// that this conversation has, lowest first.
pub(super) fn span(batch: &[NewMessage], found: &[i64]) -> Option<(i64, i64)> {
    let (first, last) = (*found.first()?, *found.last()?);
    let length = i64::try_from(batch.len()).ok()?;
    (found.len() == batch.len() && last - first + 1 == length).then_some((first, last))
}

/// Judges a batch. `here` are the messages that stand in its [`span`], with their
/// contexts; `taken` says whether any of its ids is in use. `all_count` judges
/// generated ids as if they had been chosen.
pub(super) fn standing(
    batch: &[NewMessage],
    here: &[Message],
    taken: bool,
    all_count: bool,
) -> IdConflict {
    let complete = batch.len() == here.len()
        && batch
            .iter()
            .zip(here)
            .all(|(new, stored)| (all_count || new.id_chosen) && new.is_saved_as(stored));
    if complete {
        return IdConflict::Replay;
    }
    let mut seen = HashSet::new();
    let chosen_twice = batch.iter().any(|message| !seen.insert(message.id));
    if taken || chosen_twice {
        IdConflict::Reused
    } else {
        IdConflict::Free
    }
}

/// Checks that a known key is used for the same thing again.
pub(super) fn same_request(known: &RequestRow, request: &Request) -> Result<(), StoreError> {
    if known.digest == request.digest.as_bytes() {
        Ok(())
    } else {
        Err(StoreError::AlreadyExists(Reused::RequestId))
    }
}

/// The outcome of a save that had been done under its messages' own ids.
pub(super) fn of_batch(mut messages: Vec<Message>) -> Appended {
    for message in &mut messages {
        message.contexts.clear();
    }
    Appended::Replayed {
        last_seq: messages.last().map_or(0, |message| message.seq),
        messages,
    }
}

/// The outcome of a truncation that had been done under its key.
pub(super) fn of_truncation(
    known: &RequestRow,
    request: &Request,
) -> Result<Truncated, StoreError> {
    same_request(known, request)?;
    Ok(Truncated {
        removed: known.removed.unwrap_or_default(),
        last_seq: known.last_seq,
    })
}

/// Checks that a conversation still ends where the caller expected.
pub(super) fn ends_at(expected: Option<i64>, current_seq: i64) -> Result<(), StoreError> {
    match expected {
        Some(expected) if expected != current_seq => Err(StoreError::Conflict { current_seq }),
        _ => Ok(()),
    }
}
