//! Removals: transactions that may take a while.
//!
//! What branches share stays. Whether anybody shares a message is looked at
//! under a lock on whatever the messages are kept under, since of two that give
//! up the same message one has to take it along.

use sqlx::{PgConnection, query, query_as, query_scalar, raw_sql};
use uuid::Uuid;

use super::{
    Pool,
    append::find_request,
    connection::Lease,
    sql,
    transaction::{BEGIN, before_commit, end},
};
use crate::{
    domain::{ConversationRef, UserId},
    store::{StoreError, Truncated, Truncation, failure::Trouble, replay},
};

const LOCK: &str = concat!(
    "SELECT c.last_seq, c.own_after FROM conversations c WHERE ",
    sql::named_conversation!(),
    " FOR UPDATE"
);

/// $1 conversation: the lock on its messages and on those of its lineage.
const LOCK_MESSAGES: &str = "SELECT pg_advisory_xact_lock(hashtextextended(s.id::text, 0)) \
    FROM (SELECT $1 AS id UNION SELECT l.source_id FROM lineage l WHERE l.conversation_id = $1 \
          ORDER BY 1) AS s";

const DELETE: &str = "DELETE FROM conversations c WHERE c.id = $1";

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

/// A range of the messages that are kept under an id.
type Range = (Uuid, i64, i64);

async fn remove(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<(), Trouble> {
    let id = conversation.id.as_uuid();
    begin_on(connection, conversation).await?;
    let shown = lock_messages(connection, id).await?;
    query(DELETE).bind(id).execute(&mut *connection).await?;
    release(connection, (id, 0, i64::MAX)).await?;
    for range in shown.into_iter().filter(|(source, ..)| *source != id) {
        release(connection, range).await?;
    }
    Ok(())
}

async fn cut(connection: &mut PgConnection, truncation: &Truncation) -> Result<Truncated, Trouble> {
    let id = truncation.conversation.id;
    let (last_seq, own_after) = begin_on(connection, &truncation.conversation).await?;
    if let Some(request) = &truncation.request
        && let Some(known) = find_request(connection, id, request).await?
    {
        return Ok(replay::of_truncation(&known, request)?);
    }
    replay::ends_at(truncation.expected_last_seq, last_seq)?;
    let end = End {
        conversation: id.as_uuid(),
        after_seq: truncation.after_seq,
        last_seq,
        own_after,
    };
    let truncated = Truncated {
        removed: end.cut(connection).await?,
        last_seq,
    };
    note(connection, truncation, truncated).await?;
    Ok(truncated)
}

/// Begins a transaction and locks the conversation, which gives its last number
/// and the one after which its own messages begin. The lock comes in a statement
/// of its own: what follows then sees all that was done before it was got.
async fn begin_on(
    connection: &mut PgConnection,
    conversation: &ConversationRef,
) -> Result<(i64, i64), Trouble> {
    raw_sql(BEGIN).execute(&mut *connection).await?;
    let found: Option<(i64, i64)> = query_as(LOCK)
        .bind(conversation.id.as_uuid())
        .bind(conversation.user_id.as_ref().map(UserId::as_str))
        .fetch_optional(connection)
        .await?;
    Ok(found.ok_or(StoreError::NotFound)?)
}

/// Locks the messages that a conversation shows, and gives its lineage.
async fn lock_messages(
    connection: &mut PgConnection,
    conversation: Uuid,
) -> Result<Vec<Range>, Trouble> {
    query(LOCK_MESSAGES)
        .bind(conversation)
        .execute(&mut *connection)
        .await?;
    Ok(query_as(sql::LINEAGE)
        .bind(conversation)
        .fetch_all(connection)
        .await?)
}

async fn release(
    connection: &mut PgConnection,
    (source, after_seq, upto_seq): Range,
) -> Result<(), Trouble> {
    query(sql::RELEASE)
        .bind(source)
        .bind(after_seq)
        .bind(upto_seq)
        .execute(connection)
        .await?;
    Ok(())
}

/// Where a conversation is to end.
struct End {
    conversation: Uuid,
    after_seq: i64,
    last_seq: i64,
    own_after: i64,
}

impl End {
    /// Removes what comes after it, or hides it where a branch shows it, and gives
    /// how many messages the conversation has lost.
    async fn cut(&self, connection: &mut PgConnection) -> Result<i64, Trouble> {
        let shown = lock_messages(connection, self.conversation).await?;
        let shared = if shown.is_empty() {
            0
        } else {
            self.count(connection, sql::COUNT_SHARED, self.after_seq)
                .await?
        };
        let own_from = self.after_seq.max(self.own_after);
        let own = self.count(connection, sql::COUNT_OWN, own_from).await?;
        for statement in sql::CUT_LINEAGE {
            self.bound(query(statement), self.after_seq)
                .execute(&mut *connection)
                .await?;
        }
        self.bound(query(sql::REMOVE_OWN), self.after_seq)
            .execute(&mut *connection)
            .await?;
        if self.count(connection, sql::COUNT_OWN, own_from).await? > 0 {
            self.hide(connection).await?;
        }
        for (source, after_seq, upto_seq) in shown {
            if upto_seq > self.after_seq {
                let given_up = (source, after_seq.max(self.after_seq), upto_seq);
                release(connection, given_up).await?;
            }
        }
        Ok(shared + own)
    }

    /// Shows none of the own messages that branches keep.
    async fn hide(&self, connection: &mut PgConnection) -> Result<(), Trouble> {
        if self.after_seq > self.own_after {
            query(sql::ADD_LINEAGE)
                .bind(self.conversation)
                .bind(self.conversation)
                .bind(self.own_after)
                .bind(self.after_seq)
                .execute(&mut *connection)
                .await?;
        }
        self.bound(query(sql::HIDE_OWN), self.last_seq)
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn count(
        &self,
        connection: &mut PgConnection,
        statement: &'static str,
        after_seq: i64,
    ) -> Result<i64, Trouble> {
        Ok(query_scalar(statement)
            .bind(self.conversation)
            .bind(after_seq)
            .fetch_one(connection)
            .await?)
    }

    fn bound<'q>(&self, statement: PgQuery<'q>, seq: i64) -> PgQuery<'q> {
        statement.bind(self.conversation).bind(seq)
    }
}

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

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
