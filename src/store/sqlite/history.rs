use bytes::Bytes;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{SqlitePool, connection};
use crate::store::{reads::reads, sql};

/// Statement of a history read. Parameters: $1 conversation, $2 user or NULL, and those of the
/// arguments.
///
/// The ranges of a lineage do not overlap. Reading them in their order, and the messages
/// of each in order, therefore reads all numbers in order and can stop at the limit.
/// SQLite recognizes that only if no other table is joined before the ranges.
///
/// A limit that is a variable alone would make SQLite prepare the statement again at each run.
macro_rules! history {
    ($after:literal, $own:literal, $shared:literal) => {
        sql::history!(
            // The only writer commits before it publishes anything.
            "(1 = 1)",
            concat!(
                " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c) \
                    AND m.seq > (SELECT ",
                $after,
                " FROM c) ",
                $own
            ),
            concat!(
                " FROM lineage l CROSS JOIN messages m \
                  WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.own_after > 0) \
                    AND m.conversation_id = l.source_id ",
                $shared
            )
        )
    };
}

/// Parameter: $3 limit. Messages that a summary stands for are not read.
const NEWEST: &str = concat!(
    history!(
        "max(c.own_after, c.compacted_upto_seq)",
        "ORDER BY m.seq DESC LIMIT CAST($3 AS INTEGER)",
        "AND l.upto_seq > (SELECT c.compacted_upto_seq FROM c) \
         AND m.seq > max(l.after_seq, (SELECT c.compacted_upto_seq FROM c)) \
         AND m.seq <= l.upto_seq \
         ORDER BY l.upto_seq DESC, m.seq DESC LIMIT CAST($3 AS INTEGER)"
    ),
    sql::history_head!(
        " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c WHERE c.has_pinned) \
            AND m.pinned AND m.seq > (SELECT c.own_after FROM c)",
        " FROM lineage l CROSS JOIN messages m \
          WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.has_pinned AND c.own_after > 0) \
            AND m.conversation_id = l.source_id AND m.pinned \
            AND m.seq > l.after_seq AND m.seq <= l.upto_seq \
          ORDER BY l.upto_seq DESC, m.seq DESC"
    )
);

/// Parameters: $3 number, $4 limit.
const AFTER: &str = history!(
    "c.own_after",
    "AND m.seq > $3 ORDER BY m.seq LIMIT CAST($4 AS INTEGER)",
    "AND l.upto_seq > $3 AND m.seq > max(l.after_seq, $3) AND m.seq <= l.upto_seq \
     ORDER BY l.upto_seq, m.seq LIMIT CAST($4 AS INTEGER)"
);

/// Parameters: $3 number, $4 limit.
const BEFORE: &str = history!(
    "c.own_after",
    "AND m.seq < $3 ORDER BY m.seq DESC LIMIT CAST($4 AS INTEGER)",
    "AND l.after_seq < $3 AND m.seq > l.after_seq AND m.seq < min(l.upto_seq + 1, $3) \
     ORDER BY l.upto_seq DESC, m.seq DESC LIMIT CAST($4 AS INTEGER)"
);

const CONTEXTS: &str = sql::contexts!(
    " FROM message_contexts x WHERE x.conversation_id = $1 AND x.seq BETWEEN $2 AND $3",
    " FROM lineage l JOIN message_contexts x ON x.conversation_id = l.source_id \
        AND x.seq > l.after_seq AND x.seq <= l.upto_seq \
      WHERE x.seq BETWEEN $2 AND $3"
);

/// Whether the rows of a statement must be read to their end before the connection can be used again.
const READS_ALL_ROWS: bool = false;

reads!(SqliteConnection, SqliteRow, Uuid::hyphenated);

/// Reads a conversation and its newest messages.
pub(super) async fn newest(
    readers: &SqlitePool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<Newest, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_newest(&mut reader, conversation, limit, contexts).await
}

/// Reads a page of messages.
pub(super) async fn messages(
    readers: &SqlitePool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_page(&mut reader, conversation, from, limit, contexts).await
}

/// Reads the data of a message's blobs.
pub(super) async fn blobs(
    readers: &SqlitePool,
    conversation: ConversationId,
    seq: i64,
) -> Result<Vec<(u32, Bytes)>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_blobs(&mut reader, conversation, seq).await
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    /// A sort would read all rows, even with a small limit.
    #[tokio::test]
    async fn history_reads_do_not_sort() {
        let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite")
            .run_direct(None, &mut connection, false)
            .await
            .unwrap();
        for statement in [NEWEST, AFTER, BEFORE] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain)
                .fetch_all(&mut connection)
                .await
                .unwrap();
            assert!(!steps.is_empty());
            for (.., step) in steps {
                assert!(!step.contains("TEMP B-TREE"), "{statement}: {step}");
            }
        }
    }
}
