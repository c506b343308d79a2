//! Statements on the rows of checkpoints.

use super::super::append::{append_statement, attachments};

/// Whether another version continues the sequence of the value `v`.
macro_rules! is_continued {
    () => {
        "coalesce((SELECT x.last_item FROM checkpoint_values x \
             WHERE x.namespace_id = v.namespace_id AND x.sequence = v.sequence \
               AND x.last_item > x.first_item ORDER BY x.first_item DESC LIMIT 1) > v.last_item, false)"
    };
}

/// Locks the row of the conversation; whatever the statements after it read was committed before.
pub(super) const LOCK: &str = "SELECT c.id FROM conversations c \
    WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2) FOR NO KEY UPDATE";

/// Locks the thread against writes that do not lock the conversation.
pub(super) const LOCK_THREAD: &str =
    "SELECT t.id FROM checkpoint_threads t WHERE t.conversation_id = $1 FOR UPDATE";

pub(super) const COUNT_REMOVAL: &str =
    "UPDATE checkpoint_threads SET removals = removals + 1 WHERE id = $1";

pub(super) const FIND: &str = "SELECT c.last_seq, c.own_after, t.id, n.id FROM conversations c \
    LEFT JOIN checkpoint_threads t ON t.conversation_id = c.id \
    LEFT JOIN checkpoint_namespaces n ON n.thread_id = t.id AND n.namespace = $3 \
    WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2)";

/// Finds what a put is planned with: a row for each value that is stored, and at least one.
pub(super) const FIND_PLAN: &str = concat!(
    "SELECT c.own_after, t.id, t.removals, n.id, \
        coalesce((SELECT max(x.sequence) FROM checkpoint_values x \
            WHERE x.namespace_id = n.id AND x.last_item > x.first_item), 0), \
        v.key, v.sequence, v.first_item, v.last_item, v.prefix, coalesce(",
    is_continued!(),
    ", false) \
    FROM conversations c JOIN checkpoint_threads t ON t.conversation_id = c.id \
        JOIN checkpoint_namespaces n ON n.thread_id = t.id AND n.namespace = $3 \
        LEFT JOIN checkpoint_values v ON v.namespace_id = n.id AND v.key = ANY ($4) \
    WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2)"
);

macro_rules! new_contents {
    ($columns:literal) => {
        concat!(
            "new_contents AS (INSERT INTO checkpoint_contents (thread_id, digest, size, data) \
             SELECT p.thread, d.digest, d.size, d.data FROM place p, unnest(",
            $columns,
            ") AS d (digest, size, data) ON CONFLICT (thread_id, digest) DO NOTHING)"
        )
    };
}

/// Continues a statement whose `place` has the thread with the rows of a put. A value that another
/// put has stored since its plan can have another sequence: it violates the primary key. The parameters are the
/// number of the namespace, and the columns.
macro_rules! new_rows {
    ($namespace:literal, $contents:literal, $values:literal, $checkpoint:literal) => {
        concat!(
            new_contents!($contents),
            ", new_values AS (INSERT INTO checkpoint_values \
                 (namespace_id, key, sequence, first_item, last_item, prefix, body) \
             SELECT ",
            $namespace,
            ", v.* FROM place p, unnest(",
            $values,
            ") AS v), \
             new_checkpoint AS (INSERT INTO checkpoint_states \
                 (namespace_id, id, parent_id, run_id, body) \
             SELECT ",
            $namespace,
            ", ",
            $checkpoint,
            " FROM place p ON CONFLICT (namespace_id, id) DO UPDATE \
             SET parent_id = excluded.parent_id, run_id = excluded.run_id, body = excluded.body)"
        )
    };
}

/// Whether all values with the keys of a parameter are stored.
macro_rules! are_stored {
    ($namespace:literal, $keys:literal) => {
        concat!(
            "(SELECT count(*) FROM checkpoint_values v WHERE v.namespace_id = ",
            $namespace,
            " AND v.key = ANY (",
            $keys,
            ")) = cardinality(",
            $keys,
            ")"
        )
    };
}

/// Continues the rows of a put with the writes of tasks to the parent of its checkpoint.
macro_rules! new_task_writes {
    ($namespace:literal, $parent:literal, $writes:literal) => {
        concat!(
            ", new_writes AS (INSERT INTO checkpoint_task_writes \
                 (namespace_id, checkpoint_id, digest, body) \
             SELECT ",
            $namespace,
            ", ",
            $parent,
            ", w.digest, w.body FROM place p, unnest(",
            $writes,
            ") WITH ORDINALITY AS w (digest, body, number) ORDER BY w.number \
             ON CONFLICT (namespace_id, checkpoint_id, digest) DO NOTHING)"
        )
    };
}

/// Whether a checkpoint has the writes of fewer calls than a parameter.
macro_rules! has_few_writes {
    ($namespace:literal, $checkpoint:literal, $max:literal) => {
        concat!(
            "(SELECT count(*) FROM (SELECT 1 FROM checkpoint_task_writes w WHERE w.namespace_id = ",
            $namespace,
            " AND w.checkpoint_id = ",
            $checkpoint,
            " LIMIT ",
            $max,
            ") AS s) < ",
            $max
        )
    };
}

/// Stores a put without messages. Returns the number of the last message, if the plan applies. The lock of the thread
/// waits for a removal from it, and keeps one from deleting what the put refers to.
macro_rules! put {
    ($admits:expr, $lock:literal, $writes:expr) => {
        concat!(
            "WITH place AS MATERIALIZED (SELECT t.id AS thread, c.last_seq \
             FROM conversations c JOIN checkpoint_threads t ON t.conversation_id = c.id \
             WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2) AND t.id = $3 AND t.removals = $4 AND ",
            are_stored!("$5", "$19"),
            $admits,
            $lock,
            "), ",
            new_rows!(
                "$5",
                "$6, $7, $8",
                "$9, $10, $11, $12, $13, $14",
                "$15, $16, $17, $18"
            ),
            $writes,
            " SELECT p.last_seq FROM place p"
        )
    };
}

/// Other puts can lock the thread at the same time.
pub(super) const PUT: &str = put!("", " FOR KEY SHARE OF t", "");

/// Writes of a thread wait for each other, so that their numbers are in the order of their commits.
pub(super) const PUT_WITH_WRITES: &str = put!(
    concat!(" AND ", has_few_writes!("$5", "$16", "$22")),
    " FOR NO KEY UPDATE OF t",
    new_task_writes!("$5", "$16", "$20, $21")
);

/// Stores a put with messages, like [`PUT_WITH_WRITES`] and the statement that saves a turn. The row of the
/// conversation is locked first, as by all other writes.
macro_rules! put_with_messages {
    ($attachments:expr) => {
        append_statement!(
            "locked AS MATERIALIZED (SELECT c.id FROM conversations c \
             WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2) FOR NO KEY UPDATE), \
             place AS MATERIALIZED (SELECT t.id AS thread, t.conversation_id \
             FROM locked l JOIN checkpoint_threads t ON t.conversation_id = l.id \
             WHERE t.id = $39 AND t.removals = $40 AND (SELECT count(*) FROM checkpoint_values v \
                 WHERE v.namespace_id = $41 AND v.key = ANY ($55)) = cardinality($55) \
               AND (SELECT count(*) FROM (SELECT 1 FROM checkpoint_task_writes w \
                    WHERE w.namespace_id = $41 AND w.checkpoint_id = $52 LIMIT $58) AS s) < $58 \
             FOR NO KEY UPDATE OF t), ",
            "(SELECT p.conversation_id FROM place p)",
            concat!(
                $attachments,
                new_rows!(
                    "$41",
                    "$42, $43, $44",
                    "$45, $46, $47, $48, $49, $50",
                    "$51, $52, $53, $54"
                ),
                new_task_writes!("$41", "$52", "$56, $57"),
                ", "
            )
        )
    };
}

/// Stores a put whose messages have no contexts and no blobs. PostgreSQL prepares each part of a statement
/// for execution, also one without rows.
pub(super) const PUT_WITH_MESSAGES: &str = put_with_messages!("");

/// Stores a put with messages, their contexts and blobs.
pub(super) const PUT_WITH_ATTACHMENTS: &str = put_with_messages!(attachments!());

/// Whether writes are stored, or their checkpoint has those of fewer calls than a parameter.
macro_rules! admits_writes {
    ($namespace:literal, $checkpoint:literal, $digest:literal, $max:literal) => {
        concat!(
            "(",
            has_few_writes!($namespace, $checkpoint, $max),
            " OR EXISTS (SELECT 1 FROM checkpoint_task_writes w WHERE w.namespace_id = ",
            $namespace,
            " AND w.checkpoint_id = ",
            $checkpoint,
            " AND w.digest = ",
            $digest,
            "))"
        )
    };
}

pub(super) const ADMITS_WRITES: &str = concat!("SELECT ", admits_writes!("$1", "$2", "$3", "$4"));

/// Stores writes of a task. Returns whether the thread, with its namespace, and its conversation
/// exist, and the checkpoint has few writes. Writes of a thread wait for each other, so that their numbers are in the order of their
/// commits.
macro_rules! put_writes {
    ($on_conflict:literal) => {
        concat!(
            "WITH locked AS MATERIALIZED (SELECT t.id AS thread, n.id AS namespace \
             FROM conversations c JOIN checkpoint_threads t ON t.conversation_id = c.id \
                 JOIN checkpoint_namespaces n ON n.thread_id = t.id AND n.namespace = $3 \
             WHERE c.id = $1 AND ($2 IS NULL OR c.user_id = $2) FOR NO KEY UPDATE OF t), \
             place AS MATERIALIZED (SELECT l.thread, l.namespace FROM locked l WHERE ",
            admits_writes!("l.namespace", "$7", "$8", "$10"),
            "), ",
            new_contents!("$4, $5, $6"),
            ", new_writes AS (INSERT INTO checkpoint_task_writes \
                 (namespace_id, checkpoint_id, digest, body) \
             SELECT p.namespace, $7, $8, $9 FROM place p \
             ON CONFLICT (namespace_id, checkpoint_id, digest) ",
            $on_conflict,
            ") SELECT EXISTS (SELECT 1 FROM place)"
        )
    };
}

pub(super) const PUT_WRITES_UNLOCKED: &str = put_writes!("DO NOTHING");

pub(super) const REPLACE_WRITES_UNLOCKED: &str = put_writes!("DO UPDATE SET number = DEFAULT");

pub(super) const ADD_THREAD: &str =
    "INSERT INTO checkpoint_threads (conversation_id, name) VALUES ($1, $2) RETURNING id";

pub(super) const ADD_NAMESPACE: &str =
    "INSERT INTO checkpoint_namespaces (thread_id, namespace) VALUES ($1, $2) RETURNING id";

pub(super) const NAMESPACES: &str = "SELECT n.id, n.namespace FROM checkpoint_namespaces n \
    WHERE n.thread_id = $1 AND n.id > $2 ORDER BY n.id LIMIT $3";

pub(super) const ADD_CONTENTS: &str = "INSERT INTO checkpoint_contents (thread_id, digest, size, data) \
    SELECT $1, d.digest, d.size, d.data FROM unnest($2, $3, $4) AS d (digest, size, data) \
    ON CONFLICT (thread_id, digest) DO NOTHING";

pub(super) const COUNT_CONTENTS: &str =
    "SELECT count(*) FROM checkpoint_contents d WHERE d.thread_id = $1 AND d.digest = ANY ($2)";

/// The sum before a piece decides, so that the first one is always read.
pub(super) const CONTENTS: &str = "SELECT s.digest, s.size, s.data FROM (\
        SELECT d.digest, d.size, d.data, w.number, \
            sum(d.size) OVER (ORDER BY w.number) - d.size AS bytes_before \
        FROM unnest($2) WITH ORDINALITY AS w (digest, number) \
        JOIN checkpoint_contents d ON d.thread_id = $1 AND d.digest = w.digest) AS s \
    WHERE s.bytes_before + s.size <= $3 OR s.bytes_before = 0 ORDER BY s.number";

pub(super) const VALUES: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
    FROM checkpoint_values v WHERE v.namespace_id = $1 AND v.key = ANY ($2)";

pub(super) const HEADS: &str = concat!(
    "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, ",
    is_continued!(),
    " FROM checkpoint_values v WHERE v.namespace_id = $1 AND v.key = ANY ($2)"
);

pub(super) const LAST_SEQUENCE: &str = "SELECT coalesce(max(v.sequence), 0) FROM checkpoint_values v \
    WHERE v.namespace_id = $1 AND v.last_item > v.first_item";

pub(super) const SEQUENCE: &str = "SELECT v.first_item, v.last_item, v.body FROM checkpoint_values v \
    WHERE v.namespace_id = $1 AND v.sequence = $2 AND v.first_item < $3 \
      AND v.last_item > v.first_item ORDER BY v.first_item";

pub(super) const ADD_VALUES: &str = "INSERT INTO checkpoint_values \
        (namespace_id, key, sequence, first_item, last_item, prefix, body) \
    SELECT $1, v.* FROM unnest($2, $3, $4, $5, $6, $7) AS v \
    ON CONFLICT (namespace_id, key) DO NOTHING";

pub(super) const PUT_CHECKPOINT: &str = "INSERT INTO checkpoint_states AS c \
        (namespace_id, id, parent_id, run_id, body) VALUES ($1, $2, $3, $4, $5) \
    ON CONFLICT (namespace_id, id) DO UPDATE \
    SET parent_id = excluded.parent_id, run_id = excluded.run_id, body = excluded.body";

pub(super) const PUT_WRITES: &str = "INSERT INTO checkpoint_task_writes AS w \
        (namespace_id, checkpoint_id, digest, body) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (namespace_id, checkpoint_id, digest) DO NOTHING";

pub(super) const REPLACE_WRITES: &str = "INSERT INTO checkpoint_task_writes AS w \
        (namespace_id, checkpoint_id, digest, body) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (namespace_id, checkpoint_id, digest) DO UPDATE SET number = DEFAULT";

pub(super) const CHECKPOINT: &str = "SELECT c.id, c.parent_id, c.body FROM checkpoint_states c \
    WHERE c.namespace_id = $1 AND c.id = $2";

pub(super) const LATEST: &str = "SELECT c.id, c.parent_id, c.body FROM checkpoint_states c \
    WHERE c.namespace_id = $1 ORDER BY c.id DESC LIMIT 1";

pub(super) const CHECKPOINTS: &str = "SELECT c.id, c.parent_id, c.body FROM checkpoint_states c \
    WHERE c.namespace_id = $1 AND ($2 IS NULL OR c.id < $2) ORDER BY c.id DESC LIMIT $3";

/// The sum before a call decides, so that the caller sees that there is more.
pub(super) const WRITES: &str = "SELECT s.body FROM (SELECT w.body, w.number, \
        sum(octet_length(w.body)) OVER (ORDER BY w.number) - octet_length(w.body) AS bytes_before \
        FROM checkpoint_task_writes w WHERE w.namespace_id = $1 AND w.checkpoint_id = $2) AS s \
    WHERE s.bytes_before <= $4 ORDER BY s.number LIMIT $3";

pub(super) const MESSAGES: &str = "SELECT m.conversation_id, m.seq, m.id FROM unnest($1, $2) AS w (source, id) \
    CROSS JOIN LATERAL (SELECT m.conversation_id, m.seq, m.id FROM messages m \
        WHERE m.conversation_id = w.source AND m.id = w.id OFFSET 0) AS m";

pub(super) const LINEAGE: &str = "SELECT l.source_id, l.after_seq, l.upto_seq FROM lineage l \
    WHERE l.conversation_id = $1";

pub(super) const COPY_NAMESPACE: [&str; 3] = [
    "INSERT INTO checkpoint_states (namespace_id, id, parent_id, run_id, body) \
     SELECT $2, c.id, c.parent_id, c.run_id, c.body FROM checkpoint_states c WHERE c.namespace_id = $1 \
     ON CONFLICT DO NOTHING",
    "INSERT INTO checkpoint_task_writes (namespace_id, checkpoint_id, digest, body) \
     SELECT $2, w.checkpoint_id, w.digest, w.body FROM checkpoint_task_writes w \
     WHERE w.namespace_id = $1 ORDER BY w.number ON CONFLICT DO NOTHING",
    "INSERT INTO checkpoint_values \
         (namespace_id, key, sequence, first_item, last_item, prefix, body) \
     SELECT $2, v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
     FROM checkpoint_values v WHERE v.namespace_id = $1 ON CONFLICT DO NOTHING",
];

pub(super) const COPY_CONTENTS: &str = "INSERT INTO checkpoint_contents (thread_id, digest, size, data) \
    SELECT $2, d.digest, d.size, d.data FROM checkpoint_contents d WHERE d.thread_id = $1 \
    ON CONFLICT DO NOTHING";

pub(super) const OF_RUNS: &str = "SELECT c.id FROM checkpoint_states c \
    WHERE c.run_id = ANY ($2) AND c.namespace_id = $1";

pub(super) const DELETE_CHECKPOINTS: [&str; 3] = [
    "DELETE FROM checkpoint_task_writes w WHERE w.namespace_id = $1 AND w.checkpoint_id = ANY ($2)",
    "DELETE FROM checkpoint_states c WHERE c.namespace_id = $1 AND c.id = ANY ($2)",
    "UPDATE checkpoint_states c SET parent_id = NULL \
     WHERE c.namespace_id = $1 AND c.parent_id = ANY ($2)",
];

pub(super) const VALUES_AFTER: &str = "SELECT v.key, v.sequence, v.first_item, v.last_item, v.prefix, v.body \
    FROM checkpoint_values v WHERE v.namespace_id = $1 AND ($2 IS NULL OR v.key > $2) \
    ORDER BY v.key LIMIT $3";

pub(super) const WRITES_AFTER: &str = "SELECT w.checkpoint_id, w.digest, w.body FROM checkpoint_task_writes w \
    WHERE w.namespace_id = $1 AND ($2 IS NULL OR (w.checkpoint_id, w.digest) > ($2, $3)) \
    ORDER BY w.checkpoint_id, w.digest LIMIT $4";

pub(super) const DELETE_VALUES: &str =
    "DELETE FROM checkpoint_values v WHERE v.namespace_id = $1 AND v.key = ANY ($2)";

pub(super) const DIGESTS_AFTER: &str = "SELECT d.digest FROM checkpoint_contents d \
    WHERE d.thread_id = $1 AND ($2 IS NULL OR d.digest > $2) ORDER BY d.digest LIMIT $3";

pub(super) const DELETE_CONTENTS: &str =
    "DELETE FROM checkpoint_contents d WHERE d.thread_id = $1 AND d.digest = ANY ($2)";
