//! Writes of checkpoints by one statement that does not lock the conversation for long.
//!
//! A put is planned with what was read before, or is known from the put before, so that its statement
//! must notice what has changed since. A removal from the thread changes the number of its removals, which the statement compares
//! once it has locked the row of the thread. Another put that continues the same list, or saves the
//! same message, violates a unique index. Such a put changes nothing, and is repeated in a transaction
//! that locks the conversation, like all that a plan does not cover: a new thread, a caller who is not
//! the owner, data that earlier calls have stored.

use std::future::Future;

use chrono::{DateTime, Utc};
use sqlx::{query_as, query_scalar};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    super::{
        PostgresPool,
        append::{bind_append, saved},
        batch::has_attachments,
        connection::{PooledConnection, STATEMENT_TIMEOUT, Wait},
        invalidations::{record_after, record_statement},
        store_connection::StoreConnection,
        transaction::before_commit_within,
    },
    columns::{ContentColumns, ValueColumns, WritesColumns, bind_planned},
    known_threads::KnownThreads,
    rows::CheckpointConnection,
    statements,
};
use crate::{
    domain::UserId,
    store::{
        PutCheckpoint, PutWrites, StoredCheckpoint,
        checkpoints::{
            Heads, MAX_WRITE_CALLS, NewMessages, PlannedPut, ThreadPlan, ValueHead, all_messages,
            contents_rows, keys_of, new_messages, plan_put, stored_keys, writes_row,
        },
        operation_error::{BackendError, ErrorKind, OperationError},
    },
    text_analysis::Languages,
};

/// Number of calls from which on writes are stored in a transaction, which counts those of the calls
/// before it. The statement does not see calls that commit while it waits for them.
const UNLOCKED_WRITE_CALLS: i64 = MAX_WRITE_CALLS as i64 - 1000;

/// The same number for writes that are stored with a checkpoint, which can be those of many calls.
const UNLOCKED_TASK_WRITES: i64 = MAX_WRITE_CALLS as i64 / 2;

/// Stores a checkpoint; `None` if it has to be stored in a transaction, and nothing was changed.
pub(super) async fn put_checkpoint(
    pool: &PostgresPool,
    threads: &KnownThreads,
    put: &PutCheckpoint,
) -> Result<Option<StoredCheckpoint>, OperationError> {
    if !put.contents.referenced.is_empty() {
        return Ok(None);
    }
    let mut connection = PooledConnection::acquire(pool).await?;
    let wait = connection.wait();
    let planned = plan(&mut connection, pool.languages, threads, put);
    let planned = before_commit_within(wait, STATEMENT_TIMEOUT, planned).await;
    let stored = match planned {
        Ok(Some(plan)) => {
            let after = record_after(put.invalidation, &pool.server);
            let wait = connection.wait();
            outcome_of(
                &wait,
                store(&mut connection, pool.languages, threads, put, plan, after),
            )
            .await
        }
        // The transaction finds the reason.
        Ok(None) | Err(OperationError::Store(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let record = || {
        let after = record_after(put.invalidation, &pool.server);
        record_statement([put.conversation.id], after)
    };
    let stored = match connection.release_with(stored, record).await {
        Err(error) if error.kind() == Some(ErrorKind::UniqueViolation) => Ok(None),
        stored => stored,
    };
    if !matches!(stored, Ok(Some(_))) {
        threads.remove(put);
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
    let contents = contents_rows(&put.contents);
    let contents = ContentColumns::new(&contents);
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
        .bind(UNLOCKED_WRITE_CALLS)
        .fetch_one(&mut *connection)
        .await;
    connection
        .release(written.map_err(OperationError::from))
        .await
}

/// Plan of a put.
struct Plan {
    thread: ThreadPlan,
    rows: PlannedPut,
    messages: NewMessages,
}

async fn plan(
    connection: &mut StoreConnection,
    languages: Languages,
    threads: &KnownThreads,
    put: &PutCheckpoint,
) -> Result<Option<Plan>, OperationError> {
    let known = threads.find(put);
    let is_known = known.is_some();
    let thread = match known {
        Some(thread) => thread,
        None => match find_plan(connection, put).await? {
            Some(thread) => thread,
            None => return Ok(None),
        },
    };
    let Some(rows) = plan_put(put, &thread.stored)? else {
        return Ok(None);
    };
    if rows.writes.iter().any(|row| row.replaces) {
        return Ok(None);
    }
    let messages = if is_known {
        all_messages(put)
    } else {
        let mut reads = CheckpointConnection {
            connection,
            languages,
        };
        new_messages(&mut reads, put, thread.own_after).await?
    };
    Ok(Some(Plan {
        thread,
        rows,
        messages,
    }))
}

/// Columns of a row that [`statements::FIND_PLAN`] returns.
type PlanColumns = (
    i64,
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

async fn find_plan(
    connection: &mut StoreConnection,
    put: &PutCheckpoint,
) -> Result<Option<ThreadPlan>, OperationError> {
    let found: Vec<PlanColumns> = query_as(statements::FIND_PLAN)
        .bind(put.conversation.id.as_uuid())
        .bind(put.conversation.user_id.as_ref().map(UserId::as_str))
        .bind(put.namespace.as_str())
        .bind(keys_of(put))
        .fetch_all(connection)
        .await?;
    let Some(&(own_after, thread, removals, namespace, last_sequence, ..)) = found.first() else {
        return Ok(None);
    };
    let heads = found.into_iter().filter_map(|row| {
        let (.., key, sequence, first, last, prefix, is_continued) = row;
        let head = (key?, sequence, first, last, prefix, is_continued);
        Some(ValueHead::new(head))
    });
    let stored = Heads {
        heads: heads.collect(),
        last_sequence,
    };
    Ok(Some(ThreadPlan {
        thread,
        removals,
        namespace,
        own_after,
        stored,
    }))
}

/// Executes a plan. `None` if it does not apply any more.
async fn store(
    connection: &mut StoreConnection,
    languages: Languages,
    threads: &KnownThreads,
    put: &PutCheckpoint,
    plan: Plan,
    record_after: Option<DateTime<Utc>>,
) -> Result<Option<StoredCheckpoint>, OperationError> {
    let Plan {
        thread,
        rows,
        messages,
    } = plan;
    let contents = ContentColumns::new(&rows.contents);
    let values = ValueColumns::new(&rows.values);
    let writes = WritesColumns::new(&rows.writes);
    let stored = if messages.messages.is_empty() {
        let has_writes = !rows.writes.is_empty();
        let statement = if has_writes {
            statements::PUT_WITH_WRITES
        } else {
            statements::PUT
        };
        let statement = query_scalar(statement)
            .bind(put.conversation.id.as_uuid())
            .bind(put.conversation.user_id.as_ref().map(UserId::as_str));
        let statement = bind_planned!(statement, thread, contents, values, rows.checkpoint);
        let mut statement = statement.bind(stored_keys(put));
        if has_writes {
            statement = statement
                .bind(writes.digests)
                .bind(writes.bodies)
                .bind(UNLOCKED_TASK_WRITES);
        }
        let last_seq: Option<i64> = statement.fetch_optional(connection).await?;
        last_seq.map(StoredCheckpoint::without_messages)
    } else {
        let append = messages.into_append(put.invalidation);
        let statement = if has_attachments(&append) {
            statements::PUT_WITH_ATTACHMENTS
        } else {
            statements::PUT_WITH_MESSAGES
        };
        let statement = query_as(statement);
        let statement = bind_append(statement, &append, languages, record_after);
        let statement = bind_planned!(statement, thread, contents, values, rows.checkpoint);
        let statement = statement
            .bind(stored_keys(put))
            .bind(writes.digests)
            .bind(writes.bodies)
            .bind(UNLOCKED_TASK_WRITES);
        let appended = saved(statement.fetch_optional(connection).await?)?;
        appended.map(|appended| StoredCheckpoint::with_messages(append.messages, appended))
    };
    if stored.is_some() {
        threads.add(put, thread, &rows);
    }
    Ok(stored)
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
