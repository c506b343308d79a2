use super::rows::CheckpointConnection;
use crate::{
    domain::ConversationRef,
    store::{
        ReusedKey, StoreError,
        checkpoints::{CheckpointRows as _, ThreadPlace, place_of},
        operation_error::OperationError,
    },
};

/// Number of namespaces that are read together.
const NAMESPACES: u32 = 100;

/// Copies all rows of a thread. See
/// [`CheckpointStore::copy_checkpoints`](crate::store::CheckpointStore::copy_checkpoints).
pub(super) async fn copy_thread(
    rows: &mut CheckpointConnection<'_>,
    source: &ConversationRef,
    target: &ConversationRef,
    thread_name: Option<&str>,
) -> Result<(), OperationError> {
    // The locks are taken in one order, so that two copies cannot wait for each other.
    let is_first = source.id < target.id;
    let (first, second) = if is_first {
        (source, target)
    } else {
        (target, source)
    };
    let first = lock(rows, first).await?;
    let second = lock(rows, second).await?;
    let (from, mut to) = if is_first {
        (first, second)
    } else {
        (second, first)
    };
    // The sequences of two threads have the same numbers, and cannot be mixed.
    if to.thread.is_some() {
        return Err(StoreError::AlreadyExists(ReusedKey::ConversationId).into());
    }
    let Some(from_thread) = from.thread else {
        return Ok(());
    };
    let mut after = 0;
    let mut copied_to = None;
    loop {
        let namespaces = rows.namespaces(from_thread, after, NAMESPACES).await?;
        if namespaces.is_empty() {
            break;
        }
        for (number, name) in namespaces {
            after = number;
            let found = rows.find(target, &name).await?;
            to.namespace = found.ok_or(StoreError::NotFound)?.namespace;
            let (thread, copy) = place_of(rows, target, thread_name, &name, &mut to).await?;
            copied_to = Some(thread);
            rows.copy_namespace(number, copy).await?;
        }
    }
    if let Some(thread) = copied_to {
        rows.copy_contents(from_thread, thread).await?;
    }
    Ok(())
}

async fn lock(
    rows: &mut CheckpointConnection<'_>,
    conversation: &ConversationRef,
) -> Result<ThreadPlace, OperationError> {
    let place = rows.lock(conversation, "").await?;
    Ok(place.ok_or(StoreError::NotFound)?)
}
