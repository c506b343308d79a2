use sqlx::{PgConnection, postgres::PgRow};

use super::{Pool, connection::Lease};
use crate::store::{reads::reads, sql};

/// $1 conversation's id, $2 user or NULL, and what the rest needs. Each range is
/// walked by itself, from its end; of what they give no more than the limit is
/// sent.
macro_rules! history {
    ($bound:literal, $order:literal) => {
        sql::history!(
            concat!($bound, $order),
            concat!(
                "SELECT m.* FROM c JOIN lineage l ON c.own_after > 0 AND l.conversation_id = c.id \
                 CROSS JOIN LATERAL (SELECT ",
                sql::message_columns!(),
                " FROM messages m WHERE m.conversation_id = l.source_id \
                    AND m.seq > l.after_seq AND m.seq <= l.upto_seq ",
                $bound,
                $order,
                ") AS m ",
                $order
            )
        )
    };
}

/// $3 limit.
const NEWEST: &str = history!("", "ORDER BY m.seq DESC LIMIT $3");

/// $3 number, $4 limit.
const AFTER: &str = history!("AND m.seq > $3 ", "ORDER BY m.seq LIMIT $4");

/// $3 number, $4 limit.
const BEFORE: &str = history!("AND m.seq < $3 ", "ORDER BY m.seq DESC LIMIT $4");

reads!(PgConnection, PgRow, ConversationId::as_uuid);

pub(super) async fn newest(
    pool: &Pool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), OperationError> {
    let mut lease = Lease::take(pool).await?;
    let read = read_newest(&mut lease, conversation, limit, contexts).await;
    lease.release(read)
}

pub(super) async fn messages(
    pool: &Pool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, OperationError> {
    let mut lease = Lease::take(pool).await?;
    let read = read_side(&mut lease, conversation, from, limit, contexts).await;
    lease.release(read)
}
