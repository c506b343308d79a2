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

/// Condition on the documents `d` that a search considers. Parameters: $1 user, $3
/// conversation or NULL, $4 department or NULL, $5 role or NULL.
///
/// Each stored message has one document, so that none is found twice, and is stored as long as
/// a conversation contains it.
macro_rules! search_condition {
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
pub(super) use search_condition;

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
               AND h.seq > l.after_seq AND h.seq <= l.upto_seq \
             ORDER BY l.conversation_id LIMIT 1))"
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
/// `$after` is the number of the conversation `c` after which its own messages are read, and `$own`
/// ends their selection. `$shared` selects the messages that its lineage names, and must not be
/// evaluated for a conversation without a lineage.
macro_rules! history {
    ($after:literal, $own:expr, $shared:expr) => {
        concat!(
            "WITH c AS MATERIALIZED (SELECT c.* FROM conversations c WHERE ",
            $crate::store::sql::conversation_condition!(),
            ") SELECT ",
            $crate::store::sql::conversation_columns!(),
            ", NULL AS seq, ",
            $crate::store::sql::own_message_columns!("NULL AS "),
            " FROM c UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c) \
                AND m.seq > (SELECT ",
            $after,
            " FROM c) ",
            $own,
            ") AS m UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("m.seq"),
            " FROM (",
            $shared,
            ") AS m"
        )
    };
}
pub(super) use history;

/// Continues the statement of a history read with the newest pinned messages, whose numbers are
/// negated to distinguish them, and the summary, whose number is 0. They are part of the same
/// statement, so that a concurrent compaction is seen as a whole. Conversations that have neither
/// pay for the evaluation of two conditions.
///
/// `$shared` selects the pinned messages that the conversation's lineage names.
macro_rules! history_head {
    ($shared:literal) => {
        concat!(
            " UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("-m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            " FROM messages m WHERE m.conversation_id = (SELECT c.id FROM c WHERE c.has_pinned) \
                AND m.pinned AND m.seq > (SELECT c.own_after FROM c) \
              ORDER BY m.seq DESC LIMIT 32) AS m UNION ALL SELECT ",
            $crate::store::sql::history_message_columns!("-m.seq"),
            " FROM (SELECT ",
            $crate::store::sql::message_columns!(),
            $shared,
            " LIMIT 32) AS m UNION ALL SELECT k.id, k.created_at, NULL AS metadata, ",
            $crate::store::sql::own_conversation_columns!("NULL AS "),
            ", 0 AS seq, 'system' AS role, k.summary AS content, NULL AS tokens_used, \
               NULL AS latency_ms, NULL AS name, NULL AS parts, k.token_count, \
               (1 = 0) AS pinned, (1 = 0) AS redacted FROM compactions k \
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
            $crate::store::sql::own_message_columns!("m.")
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
       WHERE o.last_session_id = $3 AND o.session_attached > c.session_attached)"
);

/// Reads the current conversation of a session, preferably one of this user. Parameters: $1
/// session, $2 user.
pub(super) const CURRENT_CONVERSATION: &str = concat!(
    "SELECT ",
    conversation_columns!(),
    " FROM conversations c WHERE c.last_session_id = $1 \
      ORDER BY (c.user_id = $2) DESC, c.session_attached DESC LIMIT 1"
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
      ORDER BY c.activity DESC LIMIT $4"
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

/// Reads the contexts of a range of messages. Parameters: $1 conversation, $2 first and $3 last
/// number. The result can include contexts of messages in the range that the conversation does
/// not contain; the caller ignores them.
pub(super) const CONTEXTS: &str = concat!(
    "SELECT x.seq, x.position, ",
    context_columns!("x."),
    " FROM message_contexts x WHERE x.conversation_id = $1 AND x.seq BETWEEN $2 AND $3 \
      UNION ALL \
      SELECT x.seq, x.position, ",
    context_columns!("x."),
    " FROM lineage l JOIN message_contexts x ON x.conversation_id = l.source_id \
        AND x.seq > l.after_seq AND x.seq <= l.upto_seq \
      WHERE l.conversation_id = $1 AND l.source_id <> $1 AND x.seq BETWEEN $2 AND $3 \
      ORDER BY 1, 2"
);

/// Reads the data of a message's blobs. Parameters: $1 conversation, $2 number.
pub(super) const BLOBS: &str = "SELECT b.position, b.data FROM message_blobs b \
      WHERE b.conversation_id = $1 AND b.seq = $2 \
    UNION ALL \
    SELECT b.position, b.data FROM lineage l JOIN message_blobs b \
        ON b.conversation_id = l.source_id AND b.seq = $2 \
      WHERE l.conversation_id = $1 AND l.source_id <> $1 \
        AND $2 > l.after_seq AND $2 <= l.upto_seq";

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
      ORDER BY c.activity DESC LIMIT $4"
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

/// Reads a conversation's lineage: the ranges of messages that it contains and that are stored
/// under another id, or under its own. Parameter: $1 conversation.
pub(super) const LINEAGE: &str = "SELECT l.source_id, l.after_seq, l.upto_seq \
    FROM lineage l WHERE l.conversation_id = $1";

/// Adds a range to a lineage. Parameters: $1 conversation, $2 source, $3 and $4 the
/// range.
pub(super) const ADD_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) VALUES ($1, $2, $3, $4)";

/// Copies the parent's lineage up to a number. Parameters: $1 branch, $2 parent, $3
/// number.
pub(super) const COPY_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) \
    SELECT $1, l.source_id, l.after_seq, CASE WHEN l.upto_seq < $3 THEN l.upto_seq ELSE $3 END \
    FROM lineage l WHERE l.conversation_id = $2 AND l.after_seq < $3";

/// Copies the parent's compaction to a branch that contains all messages that the summary stands
/// for. Parameters: $1 branch, $2 parent, $3 number.
pub(super) const COPY_COMPACTION: &str = "INSERT INTO compactions \
    (conversation_id, upto_seq, id, summary, token_count, replaced_tokens, created_at) \
    SELECT $1, k.upto_seq, k.id, k.summary, k.token_count, k.replaced_tokens, k.created_at \
    FROM compactions k WHERE k.conversation_id = $2 AND k.upto_seq <= $3";

/// Ends a conversation's lineage at a number. Parameters of both statements: $1
/// conversation, $2 number.
pub(super) const TRUNCATE_LINEAGE: [&str; 2] = [
    "DELETE FROM lineage WHERE conversation_id = $1 AND after_seq >= $2",
    "UPDATE lineage SET upto_seq = $2 WHERE conversation_id = $1 AND upto_seq > $2",
];

/// Condition that no lineage refers to the message `m`.
macro_rules! is_unreferenced {
    () => {
        "NOT EXISTS (SELECT 1 FROM lineage l WHERE l.source_id = m.conversation_id \
           AND m.seq > l.after_seq AND m.seq <= l.upto_seq)"
    };
}

/// Deletes a conversation's own messages after a number that no lineage refers to.
/// Parameters: $1 conversation, $2 number.
pub(super) const DELETE_OWN: &str = concat!(
    "DELETE FROM messages AS m WHERE m.conversation_id = $1 AND m.seq > $2 AND ",
    is_unreferenced!()
);

/// Deletes the messages of a range that no conversation contains any more. Parameters: $1
/// source, $2 and $3 the range that a lineage no longer refers to.
pub(super) const DELETE_UNREFERENCED: &str = concat!(
    "DELETE FROM messages AS m WHERE m.conversation_id = $1 AND m.seq > $2 AND m.seq <= $3 AND ",
    is_unreferenced!(),
    " AND NOT EXISTS (SELECT 1 FROM conversations c \
        WHERE c.id = m.conversation_id AND m.seq > c.own_after)"
);

/// Tokens of a message `m`. Those of a message that was saved before they were counted are
/// estimated from its length.
macro_rules! tokens {
    () => {
        "coalesce(m.token_count, (octet_length(m.content) + 3) / 4)"
    };
}

/// Counts the stored own messages after a number, and their tokens. Parameters: $1 conversation,
/// $2 number.
pub(super) const COUNT_OWN: &str = concat!(
    "SELECT count(*), CAST(coalesce(sum(",
    tokens!(),
    "), 0) AS bigint) FROM messages m WHERE m.conversation_id = $1 AND m.seq > $2"
);

/// Counts the messages that a lineage refers to after a number, and their tokens. Parameters: $1
/// conversation, $2 number.
pub(super) const COUNT_SHARED: &str = concat!(
    "SELECT count(*), CAST(coalesce(sum(",
    tokens!(),
    "), 0) AS bigint) FROM lineage l \
      JOIN messages m ON m.conversation_id = l.source_id AND m.seq <= l.upto_seq \
        AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
      WHERE l.conversation_id = $1"
);

/// Sums the tokens of a conversation's messages after a number: those up to another number, and
/// those after that. Parameters: $1 conversation, $2 and $3 the two numbers.
pub(super) const SUM_TOKENS: &str = concat!(
    "SELECT CAST(coalesce(sum(CASE WHEN t.seq <= $3 THEN t.tokens ELSE 0 END), 0) AS bigint), \
            CAST(coalesce(sum(CASE WHEN t.seq > $3 THEN t.tokens ELSE 0 END), 0) AS bigint) \
     FROM (SELECT m.seq, ",
    tokens!(),
    " AS tokens FROM conversations c JOIN messages m ON m.conversation_id = c.id \
        AND m.seq > CASE WHEN c.own_after > $2 THEN c.own_after ELSE $2 END \
      WHERE c.id = $1 UNION ALL SELECT m.seq, ",
    tokens!(),
    " AS tokens FROM lineage l JOIN messages m ON m.conversation_id = l.source_id \
        AND m.seq <= l.upto_seq \
        AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
      WHERE l.conversation_id = $1) AS t"
);

/// Reads the numbers of a conversation's compaction: the last message that its summary stands for,
/// and the tokens of these messages. Parameter: $1 conversation.
pub(super) const COMPACTION: &str = "SELECT k.upto_seq, k.replaced_tokens FROM compactions k \
    WHERE k.conversation_id = $1";

/// Stores the compaction of a conversation, in place of an earlier one. Parameters: $1
/// conversation, $2 number, $3 id, $4 summary, $5 its tokens, $6 replaced tokens, $7 time.
pub(super) const PUT_COMPACTION: &str = "INSERT INTO compactions \
    (conversation_id, upto_seq, id, summary, token_count, replaced_tokens, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (conversation_id) DO UPDATE SET upto_seq = excluded.upto_seq, id = excluded.id, \
      summary = excluded.summary, token_count = excluded.token_count, \
      replaced_tokens = excluded.replaced_tokens, created_at = excluded.created_at";

/// Removes the compaction of a conversation. Parameter: $1 conversation.
pub(super) const DELETE_COMPACTION: &str = "DELETE FROM compactions WHERE conversation_id = $1";

/// Records the last message that a summary stands for. Parameters: $1 conversation, $2 number, $3
/// tokens of the messages after it.
pub(super) const SET_COMPACTED: &str = "UPDATE conversations \
    SET compacted_upto_seq = $2, uncompacted_tokens = $3 WHERE id = $1";

/// Reads the title of a conversation, and the number of the message that it was derived from.
/// Parameter: $1 conversation.
pub(super) const TITLE: &str = "SELECT c.title, c.title_seq FROM conversations c WHERE c.id = $1";

/// Reads the beginnings of the first user messages after a number, from which a title can have been
/// derived. Parameters: $1 conversation, $2 number.
pub(super) const USER_TEXTS: &str = "SELECT t.text FROM ( \
       SELECT substr(m.content, 1, 4096) AS text \
       FROM conversations c JOIN messages m ON m.conversation_id = c.id AND m.role = 'user' \
         AND m.seq > CASE WHEN c.own_after > $2 THEN c.own_after ELSE $2 END \
       WHERE c.id = $1 ORDER BY m.seq LIMIT 16) AS t \
    UNION ALL SELECT t.text FROM ( \
       SELECT substr(m.content, 1, 4096) AS text \
       FROM lineage l JOIN messages m ON m.conversation_id = l.source_id AND m.role = 'user' \
         AND m.seq <= l.upto_seq \
         AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
       WHERE l.conversation_id = $1 ORDER BY m.seq LIMIT 16) AS t";

/// Statements that apply the effects of a removal on conversations: one on their rows, and one that
/// deletes compactions. `$effects` is a table `e` of the fields of `RemovalEffect`, and `$greatest`
/// the function that returns the greatest of its arguments.
macro_rules! apply_effects {
    ($effects:literal, $greatest:literal) => {
        [
            concat!(
                "UPDATE conversations AS c \
                 SET title = CASE WHEN e.clears_title THEN NULL ELSE c.title END, \
                     title_seq = CASE WHEN e.clears_title THEN NULL ELSE c.title_seq END, \
                     uncompacted_tokens = ",
                $greatest,
                "(0, c.uncompacted_tokens - e.tokens + coalesce(( \
                         SELECT k.replaced_tokens FROM compactions k \
                         WHERE k.conversation_id = c.id AND k.upto_seq > e.after_seq), 0)), \
                     compacted_upto_seq = CASE WHEN c.compacted_upto_seq > e.after_seq THEN 0 \
                                               ELSE c.compacted_upto_seq END \
                 FROM ",
                $effects,
                " WHERE c.id = e.id"
            ),
            concat!(
                "DELETE FROM compactions WHERE conversation_id IN ( \
                   SELECT c.id FROM ",
                $effects,
                " JOIN conversations c ON c.id = e.id WHERE c.compacted_upto_seq = 0)"
            ),
        ]
    };
}
pub(super) use apply_effects;

/// Reads a message of a conversation with the id that it is stored under. Parameters: $1
/// conversation, $2 number.
pub(super) const STORED_MESSAGE: &str = concat!(
    "SELECT s.source_id, ",
    message_columns!(),
    " FROM (SELECT c.id AS source_id FROM conversations c WHERE c.id = $1 AND c.own_after < $2 \
            UNION ALL \
            SELECT l.source_id FROM lineage l \
            WHERE l.conversation_id = $1 AND l.after_seq < $2 AND l.upto_seq >= $2) AS s \
      JOIN messages m ON m.conversation_id = s.source_id AND m.seq = $2"
);

/// Reads the ranges in which conversations contain messages that are stored under an id.
/// Parameters: $1 id, $2 first and $3 last number of the messages.
pub(super) const CONTAINING: &str = "SELECT c.id, c.own_after AS after_seq, 9223372036854775807 AS upto_seq \
       FROM conversations c WHERE c.id = $1 AND c.own_after < $3 \
     UNION ALL \
     SELECT l.conversation_id, l.after_seq, l.upto_seq FROM lineage l \
       WHERE l.source_id = $1 AND l.upto_seq >= $2 AND l.after_seq < $3";

/// Statements that remove everything but number, id, role and times of a message. Parameters: $1
/// id that it is stored under, $2 number.
pub(super) const REDACT: [&str; 3] = [
    "UPDATE messages SET content = '', name = NULL, parts = NULL, metadata = NULL, \
       token_count = 0, pinned = (1 = 0), redacted = (1 = 1) \
     WHERE conversation_id = $1 AND seq = $2",
    "DELETE FROM message_contexts WHERE conversation_id = $1 AND seq = $2",
    "DELETE FROM message_blobs WHERE conversation_id = $1 AND seq = $2",
];

/// Hides a conversation's own messages up to a number. Parameters: $1 conversation, $2
/// number.
pub(super) const EXCLUDE_OWN: &str = "UPDATE conversations SET own_after = $2 WHERE id = $1";
