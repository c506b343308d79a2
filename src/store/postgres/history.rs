use bytes::Bytes;
use sqlx::postgres::PgRow;

use super::{PostgresPool, connection::PooledConnection, store_connection::StoreConnection};
use crate::store::{reads::reads, sql};

/// Condition that no transaction that has changed or locked the conversation `c` was in progress
/// when the snapshot was taken: `xmax` is the 32 low bits of its number.
///
/// A commit can take longer than the announcement of its write, for example while it waits for a
/// standby. A window that is filled in the meantime would lack the write.
macro_rules! is_settled {
    () => {
        "CASE WHEN c.xmax = '0'::xid THEN true ELSE (\
            SELECT pg_visible_in_snapshot(greatest(0, x.top - (x.top & 4294967295) + x.low \
                + CASE WHEN x.low - (x.top & 4294967295) > 2147483647 THEN -4294967296 \
                       WHEN (x.top & 4294967295) - x.low > 2147483647 THEN 4294967296 \
                       ELSE 0 END)::text::xid8, \
                pg_current_snapshot()) \
            FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS top, \
                         c.xmax::text::bigint AS low) AS x) END"
    };
}

/// Statement of a history read. Parameters: $1 conversation, $2 user or NULL, and those of the
/// arguments.
///
/// The ranges of a lineage do not overlap, so that their order, and that of the messages of each, is
/// the order of all. PostgreSQL sorts the messages of one range after the other, and stops at the
/// limit.
macro_rules! history {
    ($after:literal, $own:literal, $ranges:literal, $shared:literal, $order:literal) => {
        sql::history!(
            is_settled!(),
            $after,
            $own,
            concat!(
                "SELECT m.* FROM lineage l CROSS JOIN LATERAL (SELECT ",
                sql::message_columns!(),
                " FROM messages m WHERE m.conversation_id = l.source_id AND m.seq <= l.upto_seq ",
                $shared,
                ") AS m \
                 WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.own_after > 0) ",
                $ranges,
                $order
            )
        )
    };
}

/// Parameter: $3 limit. Messages that a summary stands for are not read.
const NEWEST: &str = concat!(
    history!(
        "greatest(c.own_after, c.compacted_upto_seq)",
        "ORDER BY m.seq DESC LIMIT $3",
        "AND l.upto_seq > (SELECT c.compacted_upto_seq FROM c) ",
        "AND m.seq > greatest(l.after_seq, (SELECT c.compacted_upto_seq FROM c)) \
         ORDER BY m.seq DESC LIMIT $3",
        "ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $3"
    ),
    sql::history_head!(
        " FROM lineage l JOIN messages m ON m.conversation_id = l.source_id AND m.pinned \
            AND m.seq > l.after_seq AND m.seq <= l.upto_seq \
          WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.has_pinned AND c.own_after > 0) \
          ORDER BY l.upto_seq DESC, m.seq DESC"
    )
);

/// Parameters: $3 number, $4 limit.
const AFTER: &str = history!(
    "c.own_after",
    "AND m.seq > $3 ORDER BY m.seq LIMIT $4",
    "AND l.upto_seq > $3 ",
    "AND m.seq > greatest(l.after_seq, $3) ORDER BY m.seq LIMIT $4",
    "ORDER BY l.upto_seq, m.seq LIMIT $4"
);

/// Parameters: $3 number, $4 limit.
const BEFORE: &str = history!(
    "c.own_after",
    "AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4",
    "AND l.after_seq < $3 ",
    "AND m.seq > l.after_seq AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4",
    "ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $4"
);

/// Whether a response must be read to its end before the connection can be used again.
const READS_ALL_ROWS: bool = true;

reads!(StoreConnection, PgRow, std::convert::identity);

/// Reads a conversation and its newest messages.
pub(super) async fn newest(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<Newest, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let read = read_newest(&mut connection, conversation, limit, contexts).await;
    connection.release(read).await
}

/// Reads a page of messages.
pub(super) async fn messages(
    pool: &PostgresPool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let read = read_page(&mut connection, conversation, from, limit, contexts).await;
    connection.release(read).await
}

/// Reads the data of a message's blobs.
pub(super) async fn blobs(
    pool: &PostgresPool,
    conversation: ConversationId,
    seq: i64,
) -> Result<Vec<(u32, Bytes)>, OperationError> {
    let mut connection = PooledConnection::acquire(pool).await?;
    let read = read_blobs(&mut connection, conversation, seq).await;
    connection.release(read).await
}
