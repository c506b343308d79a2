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

/// Which documents a search looks at. $1 user, $3 conversation, $4 department and $5
/// role or NULL. Each stored message has one document, so that none is found twice.
macro_rules! searched {
    () => {
        "d.user_id = $1 AND ($3 IS NULL OR d.conversation_id = $3) \
         AND ($4 IS NULL OR d.dept_id = $4) AND ($5 IS NULL OR d.role = $5)"
    };
}
pub(super) use searched;

/// $1 id, $2 user or NULL.
macro_rules! named_conversation {
    () => {
        "c.id = $1 AND ($2 IS NULL OR c.user_id = $2)"
    };
}
pub(super) use named_conversation;

/// $1 id, $2 user or NULL, and what `$side` needs.
macro_rules! history {
    ($side:literal) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT c.* FROM conversations c WHERE ",
            named_conversation!(),
            ") SELECT ",
            conversation_columns!(),
            ", NULL AS seq, NULL AS role, NULL AS content, NULL AS tokens_used, \
               NULL AS latency_ms FROM c \
             UNION ALL \
             SELECT m.id, NULL, NULL, NULL, NULL, m.created_at, NULL, m.metadata, NULL, NULL, \
                    m.seq, m.role, m.content, m.tokens_used, m.latency_ms \
             FROM (SELECT ",
            message_columns!(),
            " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c) ",
            $side,
            ") AS m"
        )
    };
}

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

/// $3 limit.
pub(super) const NEWEST: &str = history!("ORDER BY m.seq DESC LIMIT $3");

/// $3 number, $4 limit.
pub(super) const AFTER: &str = history!("AND m.seq > $3 ORDER BY m.seq LIMIT $4");

/// $3 number, $4 limit.
pub(super) const BEFORE: &str = history!("AND m.seq < $3 ORDER BY m.seq DESC LIMIT $4");

/// $1 conversation, $2 and $3 first and last number.
pub(super) const SPAN: &str = concat!(
    "SELECT ",
    message_columns!(),
    " FROM messages m WHERE m.conversation_id = $1 AND m.seq BETWEEN $2 AND $3 ORDER BY m.seq"
);

/// $1 conversation, $2 and $3 first and last number.
pub(super) const CONTEXTS: &str = "SELECT x.seq, x.doc_id, x.content, x.score, x.metadata \
    FROM message_contexts x WHERE x.conversation_id = $1 AND x.seq BETWEEN $2 AND $3 \
    ORDER BY x.seq, x.position";

/// $1 conversation, $2 key.
pub(super) const REQUEST: &str = "SELECT r.digest, r.first_seq, r.last_seq, r.removed \
    FROM requests r WHERE r.conversation_id = $1 AND r.request_id = $2";
