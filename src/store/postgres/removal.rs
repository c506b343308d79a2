//! Removals: transactions that may take a while.
//!
//! Until its COMMIT is sent a removal has changed nothing, whatever becomes of
//! it: its connection is closed unless it came to its end, and the server rolls
//! back what a lost client had begun. `Pool::begin` is not used, since a future
//! that is dropped inside of it leaves a connection in a transaction that nobody
//! ends.

use std::future::Future;

use sqlx::{PgConnection, query, query_scalar, raw_sql};
use tokio::time::timeout;

use super::{
    Pool,
    append::find_request,
    connection::{Lease, REMOVAL_TIMEOUT, STATEMENT_TIMEOUT},
    sql,
};
use crate::{
    domain::{ConversationRef, UserId},
    store::{
        StoreError, Truncated, Truncation,
        failure::{Class, Failure, Trouble},
        replay,
    },
};

/// Each statement may take as long as the whole removal, which the client limits.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '35s'";

const LOCK: &str = concat!(
    "SELECT c.last_seq FROM conversations c WHERE ",
    sql::named_conversation!(),
    " FOR UPDATE"
);

const DELETE: &str = concat!(
    "DELETE FROM conversations c WHERE ",
    sql::named_conversation!()
);

const TRUNCATE: &str = "DELETE FROM messages WHERE conversation_id = $1 AND seq > $2";

const TOUCH: &str = "UPDATE conversations SET updated_at = greatest(updated_at, $2), \
    activity = nextval('activity_order') WHERE id = $1";

const NOTE: &str = "INSERT INTO requests \
    (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

pub(super) async fn delete(pool: &Pool, conversation: &ConversationRef) -> Result<(), Trouble> {
    let mut lease = Lease::take(pool).await?;
    let removed = before_commit(remove(&mut lease, conversation)).await;
    end(lease, removed).await
}

pub(super) async fn truncate(pool: &Pool, truncation: &Truncation) -> Result<Truncated, Trouble> {
    let mut lease = Lease::take(pool).await?;
    let removed = before_commit(cut(&mut lease, truncation)).await;
    end(lease, removed).await
}

async fn remove(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<(), Trouble> {
    raw_sql(BEGIN).execute(&mut *connection).await?;
    let deleted = query(DELETE)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .execute(connection)
        .await?;
    if deleted.rows_affected() == 0 {
        return Err(StoreError::NotFound.into());
    }
    Ok(())
}

async fn cut(connection: &mut PgConnection, truncation: &Truncation) -> Result<Truncated, Trouble> {
    let id = truncation.conversation.id;
    raw_sql(BEGIN).execute(&mut *connection).await?;
    // The lock comes first, in a statement of its own: the removal then sees
    // all that was saved before it got the lock.
    let last_seq: Option<i64> = query_scalar(LOCK)
        .bind(id.as_uuid())
        .bind(truncation.conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(&mut *connection)
        .await?;
    let last_seq = last_seq.ok_or(StoreError::NotFound)?;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        return Ok(replay::of_truncation(&known, request)?);
    }
    replay::ends_at(truncation.expected_last_seq, last_seq)?;
    let removed = query(TRUNCATE)
        .bind(id.as_uuid())
        .bind(truncation.after_seq)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    let truncated = Truncated {
        removed: i64::try_from(removed).unwrap_or(i64::MAX),
        last_seq,
    };
    note(connection, truncation, truncated).await?;
    Ok(truncated)
}

async fn note(
    connection: &mut PgConnection,
    truncation: &Truncation,
    truncated: Truncated,
) -> Result<(), Trouble> {
    let id = truncation.conversation.id.as_uuid();
    query(TOUCH)
        .bind(id)
        .bind(truncation.at)
        .execute(&mut *connection)
        .await?;
    if let Some(request) = &truncation.request {
        query(NOTE)
            .bind(id)
            .bind(request.id.as_str())
            .bind(request.digest.as_bytes())
            .bind(truncation.after_seq.saturating_add(1))
            .bind(truncated.last_seq)
            .bind(truncated.removed)
            .bind(truncation.at)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Limits the work before the commit. What fails in it has changed nothing.
async fn before_commit<T>(work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match timeout(REMOVAL_TIMEOUT, work).await {
        Ok(Err(Trouble::Failed(Failure {
            class: Class::Lost,
            cause,
        }))) => Err(Failure {
            class: Class::Unavailable,
            cause,
        }
        .into()),
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(Class::Unavailable, "the removal took too long").into()),
    }
}

/// Commits what was done, or takes it back, and gives the connection back if
/// that worked.
async fn end<T>(mut lease: Lease, outcome: Result<T, Trouble>) -> Result<T, Trouble> {
    let statement = if outcome.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    let ended = timeout(STATEMENT_TIMEOUT, raw_sql(statement).execute(&mut *lease)).await;
    let failure = match ended {
        Ok(Ok(_)) => return lease.release(outcome),
        Ok(Err(error)) => Failure::from(error),
        Err(_) => Failure::new(Class::Lost, "the commit was not answered in time"),
    };
    // A failed ROLLBACK changes nothing about why it was wanted.
    outcome.and(Err(failure.into()))
}
