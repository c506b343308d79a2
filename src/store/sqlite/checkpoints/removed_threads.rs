//! Threads whose rows are deleted in short transactions, because all writes share one writer. The name
//! of their conversation is not the id of one, so that no read finds them.

use sqlx::{SqliteConnection, query, query_scalar};

use super::super::{SqlitePool, connection, pending_removals::Step};
use crate::store::operation_error::OperationError;

/// Number of rows that are deleted between two looks at the time.
const BATCH: i64 = 16;

const FIND: &str = "SELECT t.id FROM checkpoint_threads t \
    WHERE t.conversation_id >= 'removed ' AND t.conversation_id < 'removed!' LIMIT 1";

const FIND_NAMESPACE: &str =
    "SELECT n.id FROM checkpoint_namespaces n WHERE n.thread_id = $1 LIMIT 1";

const DELETE_OF_NAMESPACE: [&str; 4] = [
    "DELETE FROM checkpoint_states WHERE rowid IN (SELECT c.rowid FROM checkpoint_states c \
     WHERE c.namespace_id = $1 LIMIT CAST($2 AS INTEGER))",
    "DELETE FROM checkpoint_task_writes WHERE rowid IN (SELECT w.rowid FROM checkpoint_task_writes w \
     WHERE w.namespace_id = $1 LIMIT CAST($2 AS INTEGER))",
    "DELETE FROM checkpoint_values WHERE rowid IN (SELECT v.rowid FROM checkpoint_values v \
     WHERE v.namespace_id = $1 LIMIT CAST($2 AS INTEGER))",
    "DELETE FROM checkpoint_removed_states WHERE namespace_id = $1 AND id IN (\
     SELECT x.id FROM checkpoint_removed_states x \
     WHERE x.namespace_id = $1 LIMIT CAST($2 AS INTEGER))",
];

const DELETE_NAMESPACE: &str = "DELETE FROM checkpoint_namespaces WHERE id = $1";

/// One at a time, because it can have a megabyte.
const DELETE_CONTENT: &str = "DELETE FROM checkpoint_contents WHERE rowid = \
    (SELECT d.rowid FROM checkpoint_contents d WHERE d.thread_id = $1 LIMIT 1)";

const DELETE_REMOVAL: &str = "DELETE FROM checkpoint_removals WHERE thread_id = $1";

const DELETE_THREAD: &str = "DELETE FROM checkpoint_threads WHERE id = $1";

const REMOVE_UNFINISHED: &str = "UPDATE checkpoint_threads SET conversation_id = 'removed ' || id \
    WHERE conversation_id >= 'unfinished ' AND conversation_id < 'unfinished!'";

/// Whether there are threads to delete.
pub(in super::super) async fn exist(
    connection: &mut SqliteConnection,
) -> Result<bool, OperationError> {
    let found: Option<i64> = query_scalar(FIND).fetch_optional(connection).await?;
    Ok(found.is_some())
}

/// Removes the copies that an earlier process has not finished.
pub(in super::super) async fn remove_unfinished(writer: &SqlitePool) -> Result<(), OperationError> {
    let mut transaction = connection::begin(writer).await?;
    let removed = query(REMOVE_UNFINISHED).execute(&mut *transaction).await;
    let removed = removed.map(|_| ()).map_err(OperationError::from);
    connection::end(transaction, removed).await
}

/// Deletes the rows of removed threads.
pub(in super::super) async fn sweep(writer: &SqlitePool) -> Result<(), OperationError> {
    loop {
        let mut transaction = connection::begin(writer).await?;
        let is_last = sweep_some(&mut transaction).await;
        if connection::end(transaction, is_last).await? {
            return Ok(());
        }
    }
}

/// Deletes rows as far as one transaction may. Returns whether none remains.
async fn sweep_some(connection: &mut SqliteConnection) -> Result<bool, OperationError> {
    let step = Step::begin();
    while !step.is_over() {
        let thread: Option<i64> = query_scalar(FIND).fetch_optional(&mut *connection).await?;
        let Some(thread) = thread else {
            return Ok(true);
        };
        let namespace: Option<i64> = query_scalar(FIND_NAMESPACE)
            .bind(thread)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(namespace) = namespace {
            if !sweep_namespace(connection, namespace, &step).await? {
                let deleted = query(DELETE_NAMESPACE).bind(namespace);
                deleted.execute(&mut *connection).await?;
            }
        } else {
            let deleted = query(DELETE_CONTENT).bind(thread);
            if deleted.execute(&mut *connection).await?.rows_affected() == 0 {
                for statement in [DELETE_REMOVAL, DELETE_THREAD] {
                    let deleted = query(statement).bind(thread);
                    deleted.execute(&mut *connection).await?;
                }
            }
        }
    }
    Ok(false)
}

/// Deletes rows of a namespace until the step is over. Returns whether rows may remain.
async fn sweep_namespace(
    connection: &mut SqliteConnection,
    namespace: i64,
    step: &Step,
) -> Result<bool, OperationError> {
    for statement in DELETE_OF_NAMESPACE {
        loop {
            let deleted = query(statement).bind(namespace).bind(BATCH);
            if deleted.execute(&mut *connection).await?.rows_affected() == 0 {
                break;
            }
            if step.is_over() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
