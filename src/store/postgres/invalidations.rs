//! Pending invalidations of recent windows.
//!
//! A write records one in its own transaction, under the condition of [`Invalidation`], which is
//! encoded as the time of the server after which it applies.

use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::{query, query_as};
use uuid::Uuid;

use super::{
    PostgresPool,
    connection::PooledConnection,
    server_state::{ClockReading, ServerState},
    session_check::is_crowded,
};
use crate::{
    domain::ConversationId,
    store::{Invalidation, PendingInvalidation, operation_error::OperationError},
};

/// Continues a statement whose `saved` has the id of the conversation that it has changed.
/// `$after` is the parameter with the result of [`record_after`].
macro_rules! record_saved {
    ($after:literal) => {
        concat!(
            "INSERT INTO pending_invalidations AS i (conversation_id) \
             SELECT s.id FROM saved s WHERE clock_timestamp() > ",
            $after,
            " ON CONFLICT (conversation_id) DO UPDATE SET mark = excluded.mark"
        )
    };
}
pub(super) use record_saved;

/// Returns one row, with the clock and whether the server is crowded, if nothing is pending.
const READ: &str = concat!(
    "SELECT clock_timestamp() AS clock, one.is_crowded, i.conversation_id, i.mark FROM (SELECT ",
    is_crowded!(),
    " AS is_crowded) AS one LEFT JOIN LATERAL (\
        SELECT p.conversation_id, p.mark FROM pending_invalidations p \
        WHERE $1 IS NULL OR p.conversation_id > $1 ORDER BY p.conversation_id LIMIT $2) AS i \
    ON true"
);

/// A row that a write is recording again is skipped: it will be read again. The removal needs no
/// durability, since a window can be dropped twice, and must not wait for a standby.
const REMOVE: &str = "DELETE FROM pending_invalidations WHERE conversation_id IN (\
        SELECT i.conversation_id FROM unnest($1, $2) AS d (conversation_id, mark) \
        JOIN pending_invalidations i ON i.conversation_id = d.conversation_id AND i.mark = d.mark \
        WHERE (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL \
        FOR UPDATE OF i SKIP LOCKED)";

/// Returns the time of the server after which a write records a pending invalidation; `None` if it
/// records none.
pub(super) fn record_after(
    invalidation: Invalidation,
    server: &ServerState,
) -> Option<DateTime<Utc>> {
    match invalidation {
        Invalidation::Never => None,
        // A time that is not known has passed.
        Invalidation::After(time) => Some(server.server_time(time).unwrap_or_default()),
        Invalidation::Always => Some(DateTime::default()),
    }
}

/// Statement that a transaction executes together with its COMMIT: it records pending invalidations
/// of these conversations, if the server's time is after `after`. Empty if there are none.
pub(super) fn record_statement(
    conversations: impl IntoIterator<Item = ConversationId>,
    after: Option<DateTime<Utc>>,
) -> String {
    let Some(after) = after else {
        return String::new();
    };
    let ids: Vec<_> = conversations.into_iter().map(|id| id.to_string()).collect();
    if ids.is_empty() {
        return String::new();
    }
    let micros = after.timestamp_micros();
    format!(
        "INSERT INTO pending_invalidations (conversation_id) \
         SELECT id FROM unnest('{{{ids}}}'::uuid[]) AS id \
         WHERE clock_timestamp() > 'epoch'::timestamptz + {micros} * interval '1 microsecond' \
         ORDER BY id ON CONFLICT (conversation_id) DO UPDATE SET mark = excluded.mark; ",
        ids = ids.join(",")
    )
}

/// Statement like [`record_statement`] of a write that has changed several conversations. One that is
/// not announced was branched after the announcements: its invalidation is always recorded.
pub(super) fn record_changed(
    announced: &[ConversationId],
    changed: &[ConversationId],
    after: Option<DateTime<Utc>>,
) -> String {
    let (announced, others): (Vec<ConversationId>, Vec<_>) =
        changed.iter().partition(|id| announced.contains(id));
    let always = after.map(|_| DateTime::default());
    record_statement(announced, after) + &record_statement(others, always)
}

/// Reads a page of the pending invalidations, the clock of the server, to notice soon when that is set to
/// another time, and whether the server is crowded, to leave connections for other processes soon.
pub(super) async fn read(
    pool: &PostgresPool,
    after: Option<ConversationId>,
    limit: u32,
) -> Result<Vec<PendingInvalidation>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let sent = Instant::now();
    let rows = query_as::<_, (DateTime<Utc>, bool, Option<Uuid>, Option<i64>)>(READ)
        .bind(after.map(ConversationId::as_uuid))
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await;
    if let Ok(Some((_, is_crowded, ..))) = rows.as_ref().map(|rows| rows.first()) {
        pool.record_crowding(*is_crowded);
    }
    let rows = if rows.is_ok() && pool.leaves_place() {
        // A connection that is not released is closed.
        drop(connection);
        rows?
    } else {
        let rows = rows.map_err(OperationError::from);
        connection.release(rows).await?
    };
    if let Some((time, ..)) = rows.first() {
        pool.server.record_clock(ClockReading {
            sent,
            received: Instant::now(),
            time: *time,
        });
    }
    let pending = rows.into_iter().filter_map(|(_, _, id, mark)| {
        Some(PendingInvalidation {
            conversation: ConversationId::from_uuid(id?),
            mark: mark?,
        })
    });
    Ok(pending.collect())
}

/// Removes pending invalidations that no write has recorded again.
pub(super) async fn remove(
    pool: &PostgresPool,
    completed: &[PendingInvalidation],
) -> Result<(), OperationError> {
    let ids: Vec<Uuid> = completed
        .iter()
        .map(|pending| pending.conversation.as_uuid())
        .collect();
    let marks: Vec<i64> = completed.iter().map(|pending| pending.mark).collect();
    let mut connection = PooledConnection::acquire(pool).await?;
    let removed = query(REMOVE)
        .bind(ids)
        .bind(marks)
        .execute(&mut *connection)
        .await;
    connection
        .release(removed.map(drop).map_err(OperationError::from))
        .await
}
