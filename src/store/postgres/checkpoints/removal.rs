use std::collections::HashSet;

use super::rows::CheckpointConnection;
use crate::{
    domain::ConversationRef,
    store::{
        StoreError,
        checkpoints::{
            CheckpointRows as _, Selection, selected, unneeded_contents, unneeded_values,
        },
        operation_error::OperationError,
    },
};

/// Number of rows that are deleted together.
const BATCH: usize = 500;

/// Number of namespaces that are read together.
const NAMESPACES: u32 = 500;

/// Deletes the selected checkpoints, and what only they needed. Returns their number.
pub(super) async fn remove(
    rows: &mut CheckpointConnection<'_>,
    conversation: &ConversationRef,
    selection: &Selection,
) -> Result<i64, OperationError> {
    let place = rows.lock(conversation, "").await?;
    let Some(thread) = place.ok_or(StoreError::NotFound)?.thread else {
        return Ok(0);
    };
    rows.count_removal(thread).await?;
    let mut removed = 0;
    let mut kept = HashSet::new();
    let mut after = 0;
    loop {
        let namespaces = rows.namespaces(thread, after, NAMESPACES).await?;
        if namespaces.is_empty() {
            break;
        }
        for (namespace, _) in namespaces {
            after = namespace;
            let ids = selected(rows, namespace, selection).await?;
            for batch in ids.chunks(BATCH) {
                rows.delete_checkpoints(namespace, batch).await?;
                removed += i64::try_from(batch.len()).unwrap_or_default();
            }
            let unneeded = unneeded_values(rows, namespace, &mut kept).await?;
            for batch in unneeded.chunks(BATCH) {
                rows.delete_values(namespace, batch).await?;
            }
        }
    }
    let unneeded = unneeded_contents(rows, thread, &kept).await?;
    for batch in unneeded.chunks(BATCH) {
        rows.delete_contents(thread, batch).await?;
    }
    Ok(removed)
}
