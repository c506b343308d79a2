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
/// arguments: `$own` is the range of the own messages of the conversation `c`, and `$shared` that of a
/// range `l` of its lineage, which `$ranges` restricts.
///
/// The ranges of a lineage do not overlap, so that their order, and that of the messages of each, is
/// the order of all. PostgreSQL sorts the messages of one range after the other, and stops at the
/// limit.
///
/// The functions read a range of one partition, in the snapshot of the statement.
macro_rules! history {
    ($own:literal, $shared:literal, $ranges:literal, $order:literal) => {
        sql::history!(
            is_settled!(),
            concat!(" FROM c CROSS JOIN LATERAL ", $own, " AS m"),
            concat!(
                " FROM lineage l CROSS JOIN LATERAL ",
                $shared,
                " AS m WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.own_after > 0) ",
                $ranges,
                $order
            )
        )
    };
}

/// Parameter: $3 limit. Messages that a summary stands for are not read.
const NEWEST: &str = concat!(
    history!(
        "newest_messages(c.id, greatest(c.own_after, c.compacted_upto_seq), 9223372036854775807, $3)",
        "newest_messages(l.source_id, \
            greatest(l.after_seq, (SELECT c.compacted_upto_seq FROM c)), l.upto_seq, $3)",
        "AND l.upto_seq > (SELECT c.compacted_upto_seq FROM c) ",
        "ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $3"
    ),
    sql::history_head!(
        " FROM c CROSS JOIN LATERAL \
            newest_pinned_messages(c.id, c.own_after, 9223372036854775807, $4) AS m \
          WHERE c.has_pinned",
        " FROM lineage l CROSS JOIN LATERAL \
            newest_pinned_messages(l.source_id, l.after_seq, l.upto_seq, $4) AS m \
          WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.has_pinned AND c.own_after > 0) \
          ORDER BY l.upto_seq DESC, m.seq DESC"
    )
);

/// Parameters: $3 number, $4 limit.
const AFTER: &str = history!(
    "oldest_messages(c.id, greatest(c.own_after, $3), 9223372036854775807, $4)",
    "oldest_messages(l.source_id, greatest(l.after_seq, $3), l.upto_seq, $4)",
    "AND l.upto_seq > $3 ",
    "ORDER BY l.upto_seq, m.seq LIMIT $4"
);

/// Parameters: $3 number, $4 limit.
const BEFORE: &str = history!(
    "newest_messages(c.id, c.own_after, greatest($3, 1) - 1, $4)",
    "newest_messages(l.source_id, l.after_seq, least(l.upto_seq, greatest($3, 1) - 1), $4)",
    "AND l.after_seq < $3 ",
    "ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $4"
);

const CONTEXTS: &str = sql::contexts!(
    " FROM contexts_of_messages($1, $2 - 1, $3) AS x",
    " FROM lineage l CROSS JOIN LATERAL \
        contexts_of_messages(l.source_id, greatest(l.after_seq, $2 - 1), least(l.upto_seq, $3)) AS x \
      WHERE true"
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
