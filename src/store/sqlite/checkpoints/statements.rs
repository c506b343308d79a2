//! Statements on the rows of checkpoints.

/// Whether a removal, all of whose checkpoints are marked, deletes a checkpoint.
macro_rules! is_removed {
    ($namespace:literal, $id:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM checkpoint_removed_states x \
             CROSS JOIN checkpoint_namespaces n ON n.id = x.namespace_id \
             CROSS JOIN checkpoint_removals r ON r.thread_id = n.thread_id AND r.state = 1 \
             WHERE x.namespace_id = ",
            $namespace,
            " AND x.id = ",
            $id,
            ")"
        )
    };
}

/// Begins a query for checkpoints of the namespace $1, without those that are being deleted.
macro_rules! select_checkpoints {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, CASE WHEN ",
            is_removed!("c.namespace_id", "c.parent_id"),
            " THEN NULL ELSE c.parent_id END, c.body FROM checkpoint_states c \
             WHERE c.namespace_id = $1 AND NOT ",
            is_removed!("c.namespace_id", "c.id"),
            $rest
        )
    };
}

pub(super) const FIND: &str = "SELECT c.last_seq, c.own_after, t.id, n.id FROM conversations c \
    LEFT JOIN checkpoint_threads t ON t.conversation_id = c.id \
    LEFT JOIN checkpoint_namespaces n ON n.thread_id = t.id AND n.namespace = $3 \
    WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2)";

pub(super) const ADD_THREAD: &str =
    "INSERT INTO checkpoint_threads (conversation_id, name) VALUES ($1, $2) RETURNING id";

pub(super) const ADD_NAMESPACE: &str =
    "INSERT INTO checkpoint_namespaces (thread_id, namespace) VALUES ($1, $2) RETURNING id";

pub(super) const NAMESPACES: &str = "SELECT n.id, n.namespace FROM checkpoint_namespaces n \
    WHERE n.thread_id = $1 AND n.id > $2 ORDER BY n.id LIMIT CAST($3 AS INTEGER)";

pub(super) const ADD_CONTENT: &str = "INSERT INTO checkpoint_contents (thread_id, digest, size, data) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (thread_id, digest) DO NOTHING";

pub(super) const COUNT_CONTENTS: &str = "SELECT count(*) FROM json_each($2) w CROSS JOIN checkpoint_contents d \
    ON d.thread_id = $1 AND d.digest = unhex(w.value)";

/// The sum before a piece decides, so that the first one is always read.
pub(super) const CONTENTS: &str = "SELECT d.digest, d.size, d.data FROM (\
        SELECT d.digest AS digest, w.key AS number, d.size AS size, \
            sum(d.size) OVER (ORDER BY w.key) - d.size AS bytes_before \
        FROM json_each($2) w CROSS JOIN checkpoint_contents d \
            ON d.thread_id = $1 AND d.digest = unhex(w.value)) AS s \
    CROSS JOIN checkpoint_contents d ON d.thread_id = $1 AND d.digest = s.digest \
    WHERE s.bytes_before + s.size <= $3 OR s.bytes_before = 0 ORDER BY s.number";

pub(super) const VALUES: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
    FROM json_each($2) w CROSS JOIN checkpoint_values v \
        ON v.namespace_id = $1 AND v.key = unhex(w.value)";

pub(super) const HEADS: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, \
        coalesce((SELECT x.last_item FROM checkpoint_values x \
            WHERE x.namespace_id = v.namespace_id AND x.sequence = v.sequence \
              AND x.last_item > x.first_item ORDER BY x.first_item DESC LIMIT 1), 0) > v.last_item \
    FROM json_each($2) w CROSS JOIN checkpoint_values v \
        ON v.namespace_id = $1 AND v.key = unhex(w.value)";

pub(super) const LAST_SEQUENCE: &str = "SELECT coalesce(max(v.sequence), 0) FROM checkpoint_values v \
    WHERE v.namespace_id = $1 AND v.last_item > v.first_item";

pub(super) const SEQUENCE: &str = "SELECT v.first_item, v.last_item, v.body FROM checkpoint_values v \
    WHERE v.namespace_id = $1 AND v.sequence = $2 AND v.first_item < $3 \
      AND v.last_item > v.first_item ORDER BY v.first_item";

pub(super) const ADD_VALUE: &str = "INSERT INTO checkpoint_values \
        (namespace_id, key, sequence, first_item, last_item, prefix, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (namespace_id, key) DO NOTHING";

pub(super) const PUT_CHECKPOINT: &str = "INSERT INTO checkpoint_states (namespace_id, id, parent_id, run_id, body) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (namespace_id, id) DO UPDATE \
    SET parent_id = excluded.parent_id, run_id = excluded.run_id, body = excluded.body";

pub(super) const PUT_WRITES: &str = "INSERT INTO checkpoint_task_writes \
        (namespace_id, checkpoint_id, digest, body) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (namespace_id, checkpoint_id, digest) DO NOTHING";

/// Before a call is stored again, so that it gets a higher number.
pub(super) const FORGET_WRITES: &str = "DELETE FROM checkpoint_task_writes \
    WHERE namespace_id = $1 AND checkpoint_id = $2 AND digest = $3";

pub(super) const CHECKPOINT: &str = select_checkpoints!(" AND c.id = $2");

pub(super) const LATEST: &str = select_checkpoints!(" ORDER BY c.id DESC LIMIT 1");

pub(super) const CHECKPOINTS: &str =
    select_checkpoints!(" AND c.id < $2 ORDER BY c.id DESC LIMIT CAST($3 AS INTEGER)");

/// The sum before a call decides, so that the caller sees that there is more.
pub(super) const WRITES: &str = "SELECT w.body FROM (SELECT x.number AS number, \
        sum(length(x.body)) OVER (ORDER BY x.number) - length(x.body) AS bytes_before \
        FROM checkpoint_task_writes x WHERE x.namespace_id = $1 AND x.checkpoint_id = $2) AS s \
    CROSS JOIN checkpoint_task_writes w ON w.number = s.number \
    WHERE s.bytes_before <= $4 ORDER BY s.number LIMIT CAST($3 AS INTEGER)";

/// Whether writes are stored, or their checkpoint has those of fewer calls than the limit.
pub(super) const ADMITS_WRITES: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM checkpoint_task_writes w \
        WHERE w.namespace_id = $1 AND w.checkpoint_id = $2 LIMIT CAST($4 AS INTEGER))) < $4 \
    OR EXISTS (SELECT 1 FROM checkpoint_task_writes w \
        WHERE w.namespace_id = $1 AND w.checkpoint_id = $2 AND w.digest = $3)";

pub(super) const MESSAGES: &str = "SELECT m.conversation_id, m.seq, m.id FROM json_each($1) w \
    CROSS JOIN messages m ON m.id = w.value ->> 1 AND m.conversation_id = w.value ->> 0";

pub(super) const LINEAGE: &str = "SELECT l.source_id, l.after_seq, l.upto_seq FROM lineage l \
    WHERE l.conversation_id = $1";

pub(super) const OF_RUNS: &str = "SELECT c.id FROM json_each($2) w \
    CROSS JOIN checkpoint_states c ON c.run_id = unhex(w.value) AND c.namespace_id = $1";

pub(super) const VALUES_AFTER: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
    FROM checkpoint_values v WHERE v.namespace_id = $1 AND v.key > $2 \
    ORDER BY v.key LIMIT CAST($3 AS INTEGER)";

pub(super) const WRITES_AFTER: &str = "SELECT w.checkpoint_id, w.digest, w.body FROM checkpoint_task_writes w \
    WHERE w.namespace_id = $1 AND (w.checkpoint_id, w.digest) > ($2, $3) \
    ORDER BY w.checkpoint_id, w.digest LIMIT CAST($4 AS INTEGER)";

pub(super) const DIGESTS_AFTER: &str = "SELECT d.digest FROM checkpoint_contents d \
    WHERE d.thread_id = $1 AND d.digest > $2 ORDER BY d.digest LIMIT CAST($3 AS INTEGER)";

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, query_as};

    use super::*;

    /// The time of a read does not depend on the number of checkpoints.
    #[tokio::test]
    async fn reads_of_a_checkpoint_use_indexes() {
        let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
        sqlx::migrate!("migrations/sqlite")
            .run_direct(None, &mut connection, false)
            .await
            .unwrap();
        for statement in [
            FIND,
            CHECKPOINT,
            LATEST,
            CHECKPOINTS,
            VALUES,
            HEADS,
            SEQUENCE,
            WRITES,
            CONTENTS,
        ] {
            let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let steps: Vec<(i64, i64, i64, String)> =
                query_as(explain).fetch_all(&mut connection).await.unwrap();
            assert!(!steps.is_empty());
            for (.., step) in steps {
                // The rows of a table are found, and those of a parameter or a subquery are read.
                let is_of_table = [
                    "SCAN c", "SCAN t", "SCAN n", "SCAN v", "SCAN d", "SCAN x", "SCAN r",
                ];
                assert!(!is_of_table.contains(&step.as_str()), "{statement}: {step}");
            }
        }
    }
}
