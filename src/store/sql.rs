//! SQL that PostgreSQL and SQLite share: the column lists, the reads, and the statements on
//! lineages. Every read scans one index, from the position where it starts, and only the rows
//! that it returns.
//!
//! A history read is one statement, so that its rows are consistent. Its first row is the
//! conversation, in which `seq` is NULL; without that row, there is no such conversation. The
//! messages follow.
//!
//! The column lists take the prefix of each column: a table alias such as `"m."`,
//! nothing, or `"NULL AS "` for the rows of a UNION that lack the columns.

/// Columns that conversations and messages have in common.
macro_rules! common_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "id, ",
            $prefix,
            "created_at, ",
            $prefix,
            "metadata"
        )
    };
}
pub(super) use common_columns;

/// Columns of a conversation besides [`common_columns`].
macro_rules! own_conversation_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "user_id, ",
            $prefix,
            "dept_id, ",
            $prefix,
            "title, ",
            $prefix,
            "last_seq, ",
            $prefix,
            "updated_at, ",
            $prefix,
            "parent_id, ",
            $prefix,
            "branched_at_seq, ",
            $prefix,
            "compacted_upto_seq, ",
            $prefix,
            "uncompacted_tokens"
        )
    };
}
pub(super) use own_conversation_columns;

/// Columns of a message besides [`common_columns`] and `seq`.
macro_rules! own_message_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "role, ",
            $prefix,
            "content, ",
            $prefix,
            "tokens_used, ",
            $prefix,
            "latency_ms, ",
            $prefix,
            "name, ",
            $prefix,
            "parts, ",
            $prefix,
            "token_count, ",
            $prefix,
            "pinned, ",
            $prefix,
            "redacted"
        )
    };
}
pub(super) use own_message_columns;

/// Columns of a context besides the number of its message and its position.
macro_rules! context_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "doc_id, ",
            $prefix,
            "content, ",
            $prefix,
            "score, ",
            $prefix,
            "metadata"
        )
    };
}
pub(super) use context_columns;

/// All columns of a conversation `c`, as `ConversationRow` reads them.
macro_rules! conversation_columns {
    () => {
        concat!(
            $crate::store::sql::common_columns!("c."),
            ", ",
            $crate::store::sql::own_conversation_columns!("c.")
        )
    };
}
pub(super) use conversation_columns;

/// All columns of a message `m`, as `MessageRow` reads them.
macro_rules! message_columns {
    () => {
        concat!(
            $crate::store::sql::common_columns!("m."),
            ", m.seq, ",
            $crate::store::sql::own_message_columns!("m.")
        )
    };
}
pub(super) use message_columns;

mod lineage;

/// Condition on the documents `d` that a search considers. Parameters: $1 user, $4 department or
/// NULL, $5 role or NULL.
///
/// Each stored message has one document, so that none is found twice, and is stored as long as
/// a conversation contains it.
macro_rules! search_condition {
    () => {
        "d.user_id = $1 AND ($4 IS NULL OR d.dept_id = $4) AND ($5 IS NULL OR d.role = $5)"
    };
}
pub(super) use search_condition;

/// Ranges of the messages that a conversation contains: its own ones, and those of its lineage.
macro_rules! searched_ranges {
    () => {
        $crate::store::sql::searched_ranges!("$3")
    };
    ($conversation:literal) => {
        concat!(
            "SELECT o.id AS source_id, o.own_after AS after_seq, o.last_seq AS upto_seq \
               FROM conversations o WHERE o.id = ",
            $conversation,
            " UNION ALL SELECT l.source_id, l.after_seq, l.upto_seq \
               FROM lineage l WHERE l.conversation_id = ",
            $conversation
        )
    };
}
pub(super) use searched_ranges;

/// Conversation that a search hit `h` belongs to: the requested one ($3), else the one that the
/// message was saved in if that still contains it, else a branch.
macro_rules! hit_conversation {
    () => {
        "coalesce($3, \
            (SELECT o.id FROM conversations o WHERE o.id = h.conversation_id \
               AND (h.seq > o.own_after OR EXISTS (SELECT 1 FROM lineage l \
                    WHERE l.conversation_id = o.id AND l.source_id = o.id \
                      AND h.seq > l.after_seq AND h.seq <= l.upto_seq))), \
            (SELECT l.conversation_id FROM lineage l WHERE l.source_id = h.conversation_id \
               AND l.after_seq = (SELECT max(s.after_seq) FROM lineage s \
                                  WHERE s.source_id = h.conversation_id AND s.after_seq < h.seq) \
               AND l.upto_seq >= h.seq \
             ORDER BY l.upto_seq, l.conversation_id LIMIT 1))"
    };
}
pub(super) use hit_conversation;

/// Condition on the conversation `c` that a `ConversationRef` names. Parameters: $1
/// id, $2 user or NULL.
macro_rules! conversation_condition {
    () => {
        "c.id = $1 AND ($2 IS NULL OR c.user_id = $2)"
    };
}
pub(super) use conversation_condition;

/// Statement of a history read. Parameters: $1 id, $2 user or NULL, and those of `$own` and
/// `$shared`.
///
/// `$own` selects the own messages of the conversation `c`. `$shared` selects the messages that its
/// lineage names, and must not be evaluated for a conversation without a lineage. `$is_settled` is the
/// condition that no write to the conversation is in progress.
macro_rules! history {
    ($is_settled:expr, $own:expr, $shared:expr) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT c.*, ",
            $is_settled,
            " AS is_settled FROM conversations c WHERE ",
            $crate::store::sql::conversation_condition!(),
            ") SELECT ",
            $crate::store::sql::conversation_columns!(),
            ", NULL AS seq, ",
            $crate::store::sql::own_message_columns!("NULL AS "),
            ", c.is_settled FROM c UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            $own,
            ") AS m UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            $shared,
            ") AS m"
        )
    };
}
pub(super) use history;

/// Continues the statement of a history read with the newest $4 pinned messages, whose numbers are
/// negated to distinguish them, and the summary, whose number is 0. They are part of the same
/// statement, so that a concurrent compaction is seen as a whole. Conversations that have neither
/// pay for the evaluation of two conditions.
///
/// `$own` selects the pinned messages of the conversation itself, and `$shared` those that its lineage
/// names.
macro_rules! history_head {
    ($own:expr, $shared:expr) => {
        concat!(
            " UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("-m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            $own,
            " ORDER BY m.seq DESC LIMIT CAST($4 AS INTEGER)) AS m UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("-m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            $shared,
            " LIMIT CAST($4 AS INTEGER)) AS m UNION ALL SELECT k.id, k.created_at, NULL AS metadata, ",
            $crate::store::sql::own_conversation_columns!("NULL AS "),
            ", 0 AS seq, 'system' AS role, k.summary AS content, NULL AS tokens_used, \
               NULL AS latency_ms, NULL AS name, NULL AS parts, k.token_count, \
               (1 = 0) AS pinned, (1 = 0) AS redacted, NULL AS is_settled FROM compactions k \
              WHERE k.conversation_id = (SELECT c.id FROM c WHERE c.compacted_upto_seq > 0)"
        )
    };
}
pub(super) use history_head;

/// Columns of a message's row in a history read, in the order of the conversation's row.
macro_rules! history_message_columns {
    ($seq:literal) => {
        concat!(
            $crate::store::sql::common_columns!("m."),
            ", ",
            $crate::store::sql::own_conversation_columns!("NULL AS "),
            ", ",
            $seq,
            " AS seq, ",
            $crate::store::sql::own_message_columns!("m."),
            ", NULL AS is_settled"
        )
    };
}
pub(super) use history_message_columns;

/// Reads a conversation. Parameters: $1 id, $2 user or NULL.
pub(super) const CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE ",
    conversation_condition!()
);

/// Reads a conversation if it is the current one of a session. Parameters: $1 id, $2 user or
/// NULL, $3 session.
pub(super) const CONVERSATION_IF_CURRENT: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE ",
    conversation_condition!(),
    " AND c.last_session_id = $3 AND NOT EXISTS (SELECT 1 FROM conversations o \
       WHERE o.last_session_id = $3 AND o.user_id = c.user_id \
         AND o.session_attached > c.session_attached)"
);

/// Reads the current conversation of a user's session. Other users may have recorded the same id.
/// Parameters: $1 session, $2 user.
pub(super) const CURRENT_CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE c.last_session_id = $1 AND c.user_id = $2 \
      ORDER BY c.session_attached DESC LIMIT 1"
);

/// Reads a page of a user's conversations, without those in which nothing has been saved since a
/// turn created them: their activity is negative. Parameters: $1 user, $2 department or NULL,
/// $3 upper bound of the activity, exclusive, $4 limit.
pub(super) const LIST: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    ", c.activity FROM conversations c \
      WHERE c.user_id = $1 AND ($2 IS NULL OR c.dept_id = $2) AND c.activity < $3 \
        AND c.activity > 0 \
      ORDER BY c.activity DESC LIMIT CAST($4 AS bigint)"
);

/// Reads the messages that were saved to this conversation itself and that it still contains: a
/// truncation keeps those that a branch contains. Parameters: $1 conversation, $2 first and $3
/// last number.
pub(super) const OWN_RANGE: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m JOIN conversations c ON c.id = m.conversation_id \
      WHERE m.conversation_id = $1 AND m.seq BETWEEN $2 AND $3 \
        AND (m.seq > c.own_after OR EXISTS (SELECT 1 FROM lineage l \
             WHERE l.conversation_id = $1 AND l.source_id = $1 \
               AND m.seq > l.after_seq AND m.seq <= l.upto_seq)) \
      ORDER BY m.seq"
);

/// Statement that reads the contexts of a range of messages. Parameters: $1 conversation, $2 first and
/// $3 last number. The result can include contexts of messages in the range that the conversation does
/// not contain; the caller ignores them.
///
/// `$own` selects contexts of messages that are stored under the id of the conversation, and `$shared`
/// those of the ranges `l` of its lineage.
macro_rules! contexts {
    ($own:literal, $shared:literal) => {
        concat!(
            "SELECT x.seq, x.position, ",
            $crate::store::sql::context_columns!("x."),
            $own,
            " UNION ALL SELECT x.seq, x.position, ",
            $crate::store::sql::context_columns!("x."),
            $shared,
            " AND l.conversation_id = $1 AND l.source_id <> $1 \
              AND l.upto_seq >= $2 AND l.after_seq < $3 ORDER BY 1, 2"
        )
    };
}
pub(super) use contexts;

/// Reads the data of a message's blobs. Parameters: $1 conversation, $2 number.
pub(super) const BLOBS: &str = concat!(
    "SELECT b.position, b.data FROM message_blobs b \
      WHERE b.conversation_id = $1 AND b.seq = $2 \
    UNION ALL \
    SELECT b.position, b.data FROM ",
    lineage::range_containing!(),
    " JOIN message_blobs b ON b.conversation_id = r.source_id AND b.seq = $2 \
      WHERE r.source_id <> $1 AND r.after_seq < $2"
);

/// Reads the entry of an idempotency key in the requests ledger. Parameters: $1 conversation,
/// $2 key.
pub(super) const REQUEST: &str = "SELECT r.digest, r.first_seq, r.last_seq, r.removed \
    FROM requests r WHERE r.conversation_id = $1 AND r.request_id = $2";

/// Adds an entry to the requests ledger. Parameters: $1 conversation, $2 key, $3 digest, $4 first
/// and $5 last number, $6 number of removed messages or NULL, $7 time.
pub(super) const INSERT_REQUEST: &str = "INSERT INTO requests \
    (conversation_id, request_id, digest, first_seq, last_seq, removed, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Reads a page of a conversation's branches. Parameters: $1 parent, $2 its user, $3
/// upper bound of the activity, exclusive, $4 limit.
pub(super) const BRANCHES: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    ", c.activity FROM conversations c \
      WHERE c.parent_id = $1 AND c.user_id = $2 AND c.activity < $3 \
      ORDER BY c.activity DESC LIMIT CAST($4 AS bigint)"
);

/// Condition that messages are stored under the id $1 for a branch, or that a branch refers to
/// messages under it: a new conversation with this id would contain and remove them.
macro_rules! id_is_referenced {
    () => {
        "EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = $1) \
         OR EXISTS (SELECT 1 FROM lineage l WHERE l.source_id = $1)"
    };
}
pub(super) use id_is_referenced;

/// Last number of the messages of a deleted conversation that branches contain. `NULL` if there are
/// none. Parameter: $1 id.
macro_rules! last_referenced {
    () => {
        "(SELECT max(l.upto_seq) FROM lineage l WHERE l.source_id = $1)"
    };
}
pub(super) use last_referenced;

/// Whether a branch of another user contains messages of a deleted conversation. Parameters: $1 id,
/// $2 user.
macro_rules! is_in_foreign_branches {
    () => {
        "EXISTS (SELECT 1 FROM lineage l JOIN conversations o ON o.id = l.conversation_id \
         WHERE l.source_id = $1 AND o.user_id <> $2)"
    };
}
pub(super) use is_in_foreign_branches;

pub(super) use self::lineage::{
    ADD_LINEAGE, COMPACTION, CONTAINING, COPY_COMPACTION, COPY_LINEAGE, COUNT_OWN, COUNT_RANGES,
    COUNT_SHARED, DELETE_COMPACTION, DELETE_RANGE, EXCLUDE_OWN, PUT_COMPACTION, REDACT,
    SET_COMPACTED, STORED_MESSAGE, SUM_TOKENS, TITLE, TRUNCATE_LINEAGE, UNSHARED, USER_TEXTS,
    apply_effects,
};
