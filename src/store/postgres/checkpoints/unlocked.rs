//! Writes of checkpoints by one statement that does not lock the conversation for long.
//!
//! A put is planned with what was read before, so that its statement must notice what has changed
//! since. A removal from the thread changes the number of its removals, which the statement compares
//! once it has locked the row of the thread. Another put that continues the same list, or saves the
//! same message, violates a unique index. Such a put changes nothing, and is repeated in a transaction
//! that locks the conversation, like all that a plan does not cover: a new thread, a caller who is not
//! the owner, data that earlier calls have stored.

use std::future::Future;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, query_as, query_scalar};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    super::{
        PostgresPool,
        append::{bind_append, saved},
        connection::{PooledConnection, STATEMENT_TIMEOUT, Wait},
        invalidations::record_after,
        transaction::before_commit_within,
    },
    columns::{ContentColumns, ValueColumns, bind_planned},
    statements,
};
use crate::{
    domain::UserId,
    store::{
        Appended, PutCheckpoint, PutWrites, StoredCheckpoint,
        checkpoints::{
            Heads, NewMessages, PlannedPut, ThreadPlace, ValueHead, contents_rows, keys_of,
            new_messages, plan_put, writes_row,
        },
        operation_error::{BackendError, ErrorKind, OperationError},
    },
};

/// Plan of a put.
struct Plan {
    last_seq: i64,
    thread: i64,
    namespace: i64,
    /// Number of removals from the thread at the time of the plan.
    removals: i64,
    rows: PlannedPut,
    messages: NewMessages,
}

/// Stores a checkpoint; `None` if it has to be stored in a transaction, and nothing was changed.
pub(super) async fn put_checkpoint(
    pool: &PostgresPool,
    put: &PutCheckpoint,
) -> Result<Option<StoredCheckpoint>, OperationError> {
    if !put.contents.referenced.is_empty() {
        return Ok(None);
    }
    let mut connection = PooledConnection::acquire(pool).await?;
    let wait = connection.wait();
    let planned = plan(&mut connection, put);
    let planned = before_commit_within(wait, STATEMENT_TIMEOUT, planned).await;
    let stored = match planned {
        Ok(Some(plan)) => {
            let after = record_after(put.invalidation, &pool.server);
            let wait = connection.wait();
            outcome_of(&wait, store(&mut connection, put, plan, after)).await
        }
        // The transaction finds the reason.
        Ok(None) | Err(OperationError::Store(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let stored = connection.release(stored);
    let kind = stored.as_ref().err().and_then(OperationError::kind);
    if kind == Some(ErrorKind::UniqueViolation) {
        return Ok(None);
    }
    stored
}

/// Stores writes of a task. Returns `false` if they have to be stored in a transaction.
pub(super) async fn put_writes(
    pool: &PostgresPool,
    put: &PutWrites,
) -> Result<bool, OperationError> {
    if !put.contents.referenced.is_empty() {
        return Ok(false);
    }
    let row = writes_row(put);
    let statement = if row.replaces {
        statements::REPLACE_WRITES_UNLOCKED
    } else {
        statements::PUT_WRITES_UNLOCKED
    };
    let contents = ContentColumns::new(contents_rows(&put.contents));
    let mut connection = PooledConnection::acquire(pool).await?;
    let written = query_scalar(statement)
        .bind(put.conversation.id.as_uuid())
        .bind(put.conversation.user_id.as_ref().map(UserId::as_str))
        .bind(put.namespace.as_str())
        .bind(contents.digests)
        .bind(contents.sizes)
        .bind(contents.data)
        .bind(row.checkpoint_id)
        .bind(row.digest)
        .bind(row.body)
        .fetch_one(&mut *connection)
        .await;
    connection.release(written.map_err(OperationError::from))
}

async fn plan(
    connection: &mut PgConnection,
    put: &PutCheckpoint,
) -> Result<Option<Plan>, OperationError> {
    let found: Vec<PlanColumns> = query_as(statements::FIND_PLAN)
        .bind(put.conversation.id.as_uuid())
        .bind(put.conversation.user_id.as_ref().map(UserId::as_str))
        .bind(put.namespace.as_str())
        .bind(keys_of(put))
        .fetch_all(&mut *connection)
        .await?;
    let Some(&(last_seq, has_lineage, thread, removals, namespace, last_sequence, ..)) =
        found.first()
    else {
        return Ok(None);
    };
    let heads = found.into_iter().filter_map(|row| {
        let (.., key, sequence, first, last, prefix, is_continued) = row;
        Some(ValueHead::new((
            key?,
            sequence,
            first,
            last,
            prefix,
            is_continued,
        )))
    });
    let stored = Heads {
        heads: heads.collect(),
        last_sequence,
    };
    let Some(rows) = plan_put(put, &stored)? else {
        return Ok(None);
    };
    let place = ThreadPlace {
        last_seq,
        thread: Some(thread),
        namespace: Some(namespace),
        has_lineage,
    };
    let messages = new_messages(connection, put, &place).await?;
    Ok(Some(Plan {
        last_seq,
        thread,
        namespace,
        removals,
        rows,
        messages,
    }))
}

/// Columns of [`statements::FIND_PLAN`].
type PlanColumns = (
    i64,
    bool,
    i64,
    i64,
    i64,
    i32,
    Option<Uuid>,
    Option<i32>,
    Option<i32>,
    Option<i32>,
    Option<Vec<u8>>,
    bool,
);

/// Executes a plan. `None` if it does not apply any more.
async fn store(
    connection: &mut PgConnection,
    put: &PutCheckpoint,
    plan: Plan,
    record_after: Option<DateTime<Utc>>,
) -> Result<Option<StoredCheckpoint>, OperationError> {
    let Plan {
        last_seq,
        rows,
        messages,
        ..
    } = plan;
    let contents = ContentColumns::new(rows.contents);
    let values = ValueColumns::new(rows.values);
    if messages.messages.is_empty() {
        let put = query_scalar(statements::PUT)
            .bind(put.conversation.id.as_uuid())
            .bind(put.conversation.user_id.as_ref().map(UserId::as_str));
        let put = bind_planned!(put, plan, contents, values, rows.checkpoint);
        let is_stored: bool = put.fetch_one(connection).await?;
        return Ok(is_stored.then(|| StoredCheckpoint::without_messages(last_seq)));
    }
    let append = messages.into_append(put.invalidation);
    let put = bind_append(
        query_as(statements::PUT_WITH_MESSAGES),
        &append,
        record_after,
    );
    let put = bind_planned!(put, plan, contents, values, rows.checkpoint);
    let Some(appended) = saved(put.fetch_optional(connection).await?)? else {
        return Ok(None);
    };
    let count = i64::try_from(append.messages.len()).unwrap_or(i64::MAX);
    let last_seq = match &appended {
        Appended::Saved { first_seq, .. } => first_seq + count - 1,
        Appended::Replayed { .. } => last_seq,
    };
    Ok(Some(StoredCheckpoint {
        last_seq,
        saved: Some((append.messages, appended)),
    }))
}

/// Waits for the outcome of a statement that commits.
async fn outcome_of<T>(
    wait: &Wait,
    statement: impl Future<Output = Result<T, OperationError>>,
) -> Result<T, OperationError> {
    let error = match timeout(STATEMENT_TIMEOUT, wait.for_outcome(statement)).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(silent)) => silent.into_error(ErrorKind::ConnectionLost),
        Err(_) => BackendError::new(
            ErrorKind::ConnectionLost,
            "the server did not respond in time",
        ),
    };
    Err(error.into())
}
