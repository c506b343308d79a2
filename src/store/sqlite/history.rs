use sqlx::{SqliteConnection, sqlite::SqliteRow};
use uuid::fmt::Hyphenated;

use super::{Pool, connection};
use crate::store::{reads::reads, sql};

/// $1 conversation's id, $2 user or NULL, and what the rest needs. The ranges do
/// not overlap, so that walking them in their order, and each in its own, walks
/// the numbers in order and can stop at the limit. SQLite sees that only when
/// nothing is joined before them.
macro_rules! history {
    ($own:literal, $shared:literal) => {
        sql::history!(
            $own,
            concat!(
                "SELECT ",
                sql::message_columns!(),
                " FROM lineage l CROSS JOIN messages m \
                  WHERE l.conversation_id = (SELECT c.id FROM c WHERE c.own_after > 0) \
                    AND m.conversation_id = l.source_id ",
                $shared
            )
        )
    };
}

/// $3 limit.
const NEWEST: &str = history!(
    "ORDER BY m.seq DESC LIMIT $3",
    "AND m.seq > l.after_seq AND m.seq <= l.upto_seq \
     ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $3"
);

/// $3 number, $4 limit.
const AFTER: &str = history!(
    "AND m.seq > $3 ORDER BY m.seq LIMIT $4",
    "AND l.upto_seq > $3 AND m.seq > max(l.after_seq, $3) AND m.seq <= l.upto_seq \
     ORDER BY l.upto_seq, m.seq LIMIT $4"
);

/// $3 number, $4 limit.
const BEFORE: &str = history!(
    "AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4",
    "AND l.after_seq < $3 AND m.seq > l.after_seq AND m.seq < min(l.upto_seq + 1, $3) \
     ORDER BY l.upto_seq DESC, m.seq DESC LIMIT $4"
);

reads!(SqliteConnection, SqliteRow, key);

pub(super) async fn newest(
    readers: &Pool,
    conversation: &ConversationRef,
    limit: u32,
    contexts: bool,
) -> Result<(Conversation, Vec<Message>), OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_newest(&mut reader, conversation, limit, contexts).await
}

pub(super) async fn messages(
    readers: &Pool,
    conversation: &ConversationRef,
    from: Bound,
    limit: u32,
    contexts: bool,
) -> Result<Vec<Message>, OperationError> {
    let mut reader = connection::reader(readers).await?;
    read_side(&mut reader, conversation, from, limit, contexts).await
}

fn key(conversation: ConversationId) -> Hyphenated {
    conversation.as_uuid().hyphenated()
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    /// What is sorted has been read whole, however little of it is wanted.
    #[tokio::test]
    async fn no_read_sorts() {
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
