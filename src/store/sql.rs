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
/// role or NULL. Each stored message has one document, so that none is found twice,
/// and is stored for as long as a conversation shows it.
macro_rules! searched {
    () => {
        "d.user_id = $1 \
         AND ($3 IS NULL \
              OR d.conversation_id = $3 AND d.seq > (SELECT o.own_after FROM conversations o \
                                                     WHERE o.id = $3) \
              OR EXISTS (SELECT 1 FROM lineage l WHERE l.conversation_id = $3 \
                         AND l.source_id = d.conversation_id \
                         AND d.seq > l.after_seq AND d.seq <= l.upto_seq)) \
         AND ($4 IS NULL OR d.dept_id = $4) AND ($5 IS NULL OR d.role = $5)"
    };
}
pub(super) use searched;

/// The conversation that a hit is shown in: the one that was asked for ($3), else the
/// one it was said in if that still shows it, else a branch.
macro_rules! shown_in {
    () => {
        "coalesce($3, \
            (SELECT o.id FROM conversations o WHERE o.id = h.conversation_id \
               AND (h.seq > o.own_after OR EXISTS (SELECT 1 FROM lineage l \
                    WHERE l.conversation_id = o.id AND l.source_id = o.id \
                      AND h.seq > l.after_seq AND h.seq <= l.upto_seq))), \
            (SELECT l.conversation_id FROM lineage l WHERE l.source_id = h.conversation_id \
               AND h.seq > l.after_seq AND h.seq <= l.upto_seq \
             ORDER BY l.conversation_id LIMIT 1))"
    };
}
pub(super) use shown_in;

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
pub(super) const CONTEXTS: &str = "SELECT x.seq, x.position, x.doc_id, x.content, x.score, x.metadata \
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

/// $1 parent, $2 its user, $3 below this activity, $4 limit.
pub(super) const BRANCHES: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    ", c.activity FROM conversations c \
      WHERE c.parent_id = $1 AND c.user_id = $2 AND c.activity < $3 \
      ORDER BY c.activity DESC LIMIT $4"
);

/// Whether messages are kept under $1 for a branch, or a branch counts on those that
/// are kept there: whoever got the id would show and remove them.
macro_rules! id_is_kept {
    () => {
        "EXISTS (SELECT 1 FROM messages m WHERE m.conversation_id = $1) \
         OR EXISTS (SELECT 1 FROM lineage l WHERE l.source_id = $1)"
    };
}
pub(super) use id_is_kept;

/// $1 conversation: what it shows of messages that are kept under an id, which can
/// be its own.
pub(super) const LINEAGE: &str = "SELECT l.source_id, l.after_seq, l.upto_seq \
    FROM lineage l WHERE l.conversation_id = $1";

/// $1 conversation, $2 source, $3 and $4 the range.
pub(super) const ADD_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) VALUES ($1, $2, $3, $4)";

/// $1 branch, $2 parent, $3 number: what the parent's lineage has up to there.
pub(super) const COPY_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) \
    SELECT $1, l.source_id, l.after_seq, CASE WHEN l.upto_seq < $3 THEN l.upto_seq ELSE $3 END \
    FROM lineage l WHERE l.conversation_id = $2 AND l.after_seq < $3";

/// $1 conversation, $2 number: ends its lineage there, in two statements.
pub(super) const CUT_LINEAGE: [&str; 2] = [
    "DELETE FROM lineage WHERE conversation_id = $1 AND after_seq >= $2",
    "UPDATE lineage SET upto_seq = $2 WHERE conversation_id = $1 AND upto_seq > $2",
];

/// Whether no conversation's lineage shows m.
macro_rules! not_shared {
    () => {
        "NOT EXISTS (SELECT 1 FROM lineage l WHERE l.source_id = m.conversation_id \
           AND m.seq > l.after_seq AND m.seq <= l.upto_seq)"
    };
}

/// $1 conversation, $2 number: removes its own messages after it that nobody
/// shares.
pub(super) const REMOVE_OWN: &str = concat!(
    "DELETE FROM messages AS m WHERE m.conversation_id = $1 AND m.seq > $2 AND ",
    not_shared!()
);

/// $1 source, $2 and $3 a range that was given up: removes what nobody shows any
/// more.
pub(super) const RELEASE: &str = concat!(
    "DELETE FROM messages AS m WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3 AND ",
    not_shared!(),
    " AND NOT EXISTS (SELECT 1 FROM conversations c \
        WHERE c.id = m.conversation_id AND m.seq > c.own_after)"
);

/// $1 conversation, $2 number: how many own messages are kept after it.
pub(super) const COUNT_OWN: &str =
    "SELECT count(*) FROM messages m WHERE m.conversation_id = $1 AND m.seq > $2";

/// $1 conversation, $2 number: how many messages its lineage shows after it.
pub(super) const COUNT_SHARED: &str = "SELECT count(*) FROM lineage l \
    JOIN messages m ON m.conversation_id = l.source_id AND m.seq <= l.upto_seq \
      AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
    WHERE l.conversation_id = $1";

/// $1 conversation, $2 number: shows own messages only after it.
pub(super) const HIDE_OWN: &str = "UPDATE conversations SET own_after = $2 WHERE id = $1";
