//! The reads, which both databases understand and do alike: each walks one
//! index, from the place where it starts, for as many rows as it answers.
//!
//! History reads are one statement, and so of one moment. Their first row is
//! the conversation, without a number; none means that there is no such
//! conversation. The messages follow.

macro_rules! conversation_columns {
    () => {
        "c.id, c.user_id, c.dept_id, c.title, c.last_seq, c.created_at, c.updated_at, \
         c.metadata, c.parent_id, c.branched_at_seq"
    };
}
pub(super) use conversation_columns;

macro_rules! message_columns {
    () => {
        "m.id, m.seq, m.role, m.content, m.tokens_used, m.latency_ms, m.created_at, m.metadata"
    };
}
pub(super) use message_columns;

/// $1 id, $2 user or NULL.
macro_rules! named_conversation {
    () => {
        "c.id = $1 AND ($2 IS NULL OR c.user_id = $2)"
    };
}
pub(super) use named_conversation;

/// $1 id, $2 user or NULL, and what `$own` and `$shared` need: the end of a
/// selection of the conversation's own messages, and a selection of those that its
/// lineage names. Only a conversation that has a lineage is asked for it.
macro_rules! history {
    ($own:expr, $shared:expr) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT c.* FROM conversations c WHERE ",
            $crate::store::sql::named_conversation!(),
            ") SELECT ",
            $crate::store::sql::conversation_columns!(),
            ", NULL AS seq, NULL AS role, NULL AS content, NULL AS tokens_used, \
               NULL AS latency_ms FROM c \
             UNION ALL \
             SELECT m.id, NULL, NULL, NULL, NULL, m.created_at, NULL, m.metadata, NULL, NULL, \
                    m.seq, m.role, m.content, m.tokens_used, m.latency_ms \
             FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c) \
                AND m.seq > (SELECT c.own_after FROM c) ",
            $own,
            ") AS m \
             UNION ALL \
             SELECT m.id, NULL, NULL, NULL, NULL, m.created_at, NULL, m.metadata, NULL, NULL, \
                    m.seq, m.role, m.content, m.tokens_used, m.latency_ms \
             FROM (",
            $shared,
            ") AS m"
        )
    };
}
pub(super) use history;

pub(super) const CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE ",
    named_conversation!()
);

/// $3 session: also whether nothing is newer about that session.
pub(super) const CONVERSATION_ON_SESSION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE ",
    named_conversation!(),
    " AND c.last_session_id = $3 AND NOT EXISTS (SELECT 1 FROM conversations o \
       WHERE o.last_session_id = $3 AND o.session_attached > c.session_attached)"
);

/// $1 session, $2 user.
pub(super) const CONVERSATION_OF_SESSION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE c.last_session_id = $1 \
      ORDER BY (c.user_id = $2) DESC, c.session_attached DESC LIMIT 1"
);

/// $1 user, $2 department or NULL, $3 below this activity, $4 limit.
pub(super) const LIST: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    ", c.activity FROM conversations c \
      WHERE c.user_id = $1 AND ($2 IS NULL OR c.dept_id = $2) AND c.activity < $3 \
      ORDER BY c.activity DESC LIMIT $4"
);

/// $1 conversation, $2 and $3 first and last number.
///
/// The messages that were saved to this very conversation and that it shows: a
/// truncation may have left some for a branch.
pub(super) const SPAN: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m JOIN conversations c ON c.id = m.conversation_id \
      WHERE m.conversation_id = $1 AND m.seq BETWEEN $2 AND $3 \
        AND (m.seq > c.own_after OR EXISTS (SELECT 1 FROM lineage l \
             WHERE l.conversation_id = $1 AND l.source_id = $1 \
               AND m.seq > l.after_seq AND m.seq <= l.upto_seq)) \
      ORDER BY m.seq"
);

/// $1 conversation, $2 and $3 first and last number. What it does not show among
/// them belongs to no message that it shows.
pub(super) const CONTEXTS: &str =
    "SELECT x.seq, x.position, x.doc_id, x.content, x.score, x.metadata \
     FROM message_contexts x WHERE x.conversation_id = $1 AND x.seq BETWEEN $2 AND $3 \
     UNION ALL \
     SELECT x.seq, x.position, x.doc_id, x.content, x.score, x.metadata \
     FROM lineage l JOIN message_contexts x ON x.conversation_id = l.source_id \
       AND x.seq > l.after_seq AND x.seq <= l.upto_seq \
     WHERE l.conversation_id = $1 AND l.source_id <> $1 AND x.seq BETWEEN $2 AND $3 \
     ORDER BY 1, 2";

/// $1 conversation, $2 key.
pub(super) const REQUEST: &str = "SELECT r.digest, r.first_seq, r.last_seq, r.removed \
    FROM requests r WHERE r.conversation_id = $1 AND r.request_id = $2";

/// $1 conversation, $2 user or NULL, $3 below this activity, $4 limit. The first
/// row is the conversation itself; none means that there is no such one.
pub(super) const BRANCHES: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    ", NULL AS activity FROM conversations c WHERE ",
    named_conversation!(),
    " UNION ALL SELECT * FROM (SELECT ",
    conversation_columns!(),
    ", c.activity FROM conversations c WHERE c.parent_id = $1 \
        AND c.user_id = (SELECT p.user_id FROM conversations p WHERE p.id = $1 \
                         AND ($2 IS NULL OR p.user_id = $2)) \
        AND c.activity < $3 ORDER BY c.activity DESC LIMIT $4) AS b"
);
