//! Statements on lineages and on removals, compactions and redactions, which affect all conversations
//! that share messages.

/// Adds a range to a lineage. Parameters: $1 conversation, $2 source, $3 and $4 the
/// range.
pub(in crate::store) const ADD_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) VALUES ($1, $2, $3, $4)";

/// Copies the parent's lineage up to a number. Parameters: $1 branch, $2 parent, $3
/// number.
pub(in crate::store) const COPY_LINEAGE: &str = "INSERT INTO lineage \
    (conversation_id, source_id, after_seq, upto_seq) \
    SELECT $1, l.source_id, l.after_seq, CASE WHEN l.upto_seq < $3 THEN l.upto_seq ELSE $3 END \
    FROM lineage l WHERE l.conversation_id = $2 AND l.after_seq < $3";

/// Copies the parent's compaction to a branch that contains all messages that the summary stands
/// for. Parameters: $1 branch, $2 parent, $3 number.
pub(in crate::store) const COPY_COMPACTION: &str = "INSERT INTO compactions \
    (conversation_id, upto_seq, id, summary, token_count, replaced_tokens, created_at) \
    SELECT $1, k.upto_seq, k.id, k.summary, k.token_count, k.replaced_tokens, k.created_at \
    FROM compactions k WHERE k.conversation_id = $2 AND k.upto_seq <= $3";

/// Ends a conversation's lineage at a number. Parameters of both statements: $1
/// conversation, $2 number.
pub(in crate::store) const TRUNCATE_LINEAGE: [&str; 2] = [
    "DELETE FROM lineage WHERE conversation_id = $1 AND after_seq >= $2",
    "UPDATE lineage SET upto_seq = $2 WHERE conversation_id = $1 AND upto_seq > $2",
];

/// Counts the ranges that the lineage of a branch would have. Parameters: $1 parent, $2 number at
/// which it is branched.
pub(in crate::store) const COUNT_RANGES: &str = "SELECT count(*) FROM ( \
       SELECT 1 FROM lineage l WHERE l.conversation_id = $1 AND l.after_seq < $2 \
       UNION ALL SELECT 1 FROM conversations c WHERE c.id = $1 AND c.own_after < $2) AS r";

/// Last number up to which other conversations than $1 refer to the messages that are stored under
/// `$source` after the number `$after`.
///
/// All lineages that refer to messages of one segment, which begins at a value that `own_after` of
/// the source had, refer to it from its beginning. One row therefore determines what is kept.
macro_rules! referenced_upto {
    ($source:literal, $after:literal) => {
        concat!(
            "(SELECT o.upto_seq FROM lineage o WHERE o.source_id = ",
            $source,
            " AND o.after_seq = ",
            $after,
            " AND o.conversation_id <> $1 ORDER BY o.upto_seq DESC LIMIT 1)"
        )
    };
}

/// Finds the messages after a number that only one conversation contains: their source, the number
/// before the first of their range, its last number, and up to which number other conversations
/// contain messages of the range. The own messages, which the last column marks, are always one row.
/// Parameters: $1 conversation, $2 number.
pub(in crate::store) const UNSHARED: &str = concat!(
    "SELECT c.id, c.own_after, c.last_seq, ",
    referenced_upto!("c.id", "c.own_after"),
    ", (1 = 1) FROM conversations c WHERE c.id = $1 UNION ALL \
     SELECT s.source_id, s.after_seq, s.upto_seq, s.referenced_upto, (1 = 0) FROM ( \
       SELECT l.source_id, l.after_seq, l.upto_seq, ",
    referenced_upto!("l.source_id", "l.after_seq"),
    " AS referenced_upto FROM lineage l WHERE l.conversation_id = $1 AND l.upto_seq > $2 \
         AND NOT EXISTS (SELECT 1 FROM conversations c \
                         WHERE c.id = l.source_id AND c.own_after <= l.after_seq)) AS s \
     WHERE s.referenced_upto IS NULL OR s.referenced_upto < s.upto_seq"
);

/// Deletes the messages of a range. Parameters: $1 source, $2 and $3 the range.
pub(in crate::store) const DELETE_RANGE: &str =
    "DELETE FROM messages WHERE conversation_id = $1 AND seq > $2 AND seq <= $3";

/// Tokens of a message `m`. Those of a message that was saved before they were counted are
/// estimated from its length.
macro_rules! tokens {
    () => {
        "coalesce(m.token_count, (octet_length(m.content) + 3) / 4)"
    };
}

/// Counts the stored own messages after a number, and their tokens. Parameters: $1 conversation,
/// $2 number.
pub(in crate::store) const COUNT_OWN: &str = concat!(
    "SELECT count(*), CAST(coalesce(sum(",
    tokens!(),
    "), 0) AS bigint) FROM messages m WHERE m.conversation_id = $1 AND m.seq > $2"
);

/// Counts the messages that a lineage refers to after a number, and their tokens. Parameters: $1
/// conversation, $2 number.
pub(in crate::store) const COUNT_SHARED: &str = concat!(
    "SELECT count(*), CAST(coalesce(sum(",
    tokens!(),
    "), 0) AS bigint) FROM lineage l \
      JOIN messages m ON m.conversation_id = l.source_id AND m.seq <= l.upto_seq \
        AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
      WHERE l.conversation_id = $1 AND l.upto_seq > $2"
);

/// Sums the tokens of a conversation's messages after a number: those up to another number, and
/// those after that. Parameters: $1 conversation, $2 and $3 the two numbers.
pub(in crate::store) const SUM_TOKENS: &str = concat!(
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
      WHERE l.conversation_id = $1 AND l.upto_seq > $2) AS t"
);

/// Reads the numbers of a conversation's compaction: the last message that its summary stands for,
/// and the tokens of these messages. Parameter: $1 conversation.
pub(in crate::store) const COMPACTION: &str = "SELECT k.upto_seq, k.replaced_tokens FROM compactions k \
    WHERE k.conversation_id = $1";

/// Stores the compaction of a conversation, in place of an earlier one. Parameters: $1
/// conversation, $2 number, $3 id, $4 summary, $5 its tokens, $6 replaced tokens, $7 time.
pub(in crate::store) const PUT_COMPACTION: &str = "INSERT INTO compactions \
    (conversation_id, upto_seq, id, summary, token_count, replaced_tokens, created_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (conversation_id) DO UPDATE SET upto_seq = excluded.upto_seq, id = excluded.id, \
      summary = excluded.summary, token_count = excluded.token_count, \
      replaced_tokens = excluded.replaced_tokens, created_at = excluded.created_at";

/// Removes the compaction of a conversation. Parameter: $1 conversation.
pub(in crate::store) const DELETE_COMPACTION: &str =
    "DELETE FROM compactions WHERE conversation_id = $1";

/// Records the last message that a summary stands for. Parameters: $1 conversation, $2 number, $3
/// tokens of the messages after it.
pub(in crate::store) const SET_COMPACTED: &str = "UPDATE conversations \
    SET compacted_upto_seq = $2, uncompacted_tokens = $3 WHERE id = $1";

/// Reads the title of a conversation, and the number of the message that it was derived from.
/// Parameter: $1 conversation.
pub(in crate::store) const TITLE: &str =
    "SELECT c.title, c.title_seq FROM conversations c WHERE c.id = $1";

/// Reads the beginnings of the first user messages after a number, from which a title can have been
/// derived. Parameters: $1 conversation, $2 number.
pub(in crate::store) const USER_TEXTS: &str = "SELECT t.text FROM ( \
       SELECT substr(m.content, 1, 4096) AS text \
       FROM conversations c JOIN messages m ON m.conversation_id = c.id AND m.role = 'user' \
         AND m.seq > CASE WHEN c.own_after > $2 THEN c.own_after ELSE $2 END \
       WHERE c.id = $1 ORDER BY m.seq LIMIT 16) AS t \
    UNION ALL SELECT t.text FROM ( \
       SELECT substr(m.content, 1, 4096) AS text \
       FROM lineage l JOIN messages m ON m.conversation_id = l.source_id AND m.role = 'user' \
         AND m.seq <= l.upto_seq \
         AND m.seq > CASE WHEN l.after_seq > $2 THEN l.after_seq ELSE $2 END \
       WHERE l.conversation_id = $1 AND l.upto_seq > $2 ORDER BY m.seq LIMIT 16) AS t";

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
pub(in crate::store) use apply_effects;

/// The range `r` of the lineage of the conversation $1 that can contain the number $2: the first that
/// does not end before it, because the ranges do not overlap.
macro_rules! range_containing {
    () => {
        "(SELECT l.source_id, l.after_seq FROM lineage l \
           WHERE l.conversation_id = $1 AND l.upto_seq >= $2 ORDER BY l.upto_seq LIMIT 1) AS r"
    };
}
pub(in crate::store) use range_containing;

/// Reads a message of a conversation with the id that it is stored under. Parameters: $1
/// conversation, $2 number.
pub(in crate::store) const STORED_MESSAGE: &str = concat!(
    "SELECT s.source_id, ",
    message_columns!(),
    " FROM (SELECT c.id AS source_id FROM conversations c WHERE c.id = $1 AND c.own_after < $2 \
            UNION ALL \
            SELECT r.source_id FROM ",
    range_containing!(),
    " WHERE r.after_seq < $2) AS s \
      JOIN messages m ON m.conversation_id = s.source_id AND m.seq = $2"
);

/// Reads the ranges in which conversations contain messages that are stored under an id.
/// Parameters: $1 id, $2 first and $3 last number of the messages.
pub(in crate::store) const CONTAINING: &str = "SELECT c.id, c.own_after AS after_seq, 9223372036854775807 AS upto_seq \
       FROM conversations c WHERE c.id = $1 AND c.own_after < $3 \
     UNION ALL \
     SELECT l.conversation_id, l.after_seq, l.upto_seq FROM lineage l \
       WHERE l.source_id = $1 AND l.upto_seq >= $2 AND l.after_seq < $3";

/// Statements that remove everything but number, id, role and times of a message. Parameters: $1
/// id that it is stored under, $2 number.
pub(in crate::store) const REDACT: [&str; 3] = [
    "UPDATE messages SET content = '', name = NULL, parts = NULL, metadata = NULL, \
       token_count = 0, pinned = (1 = 0), redacted = (1 = 1) \
     WHERE conversation_id = $1 AND seq = $2",
    "DELETE FROM message_contexts WHERE conversation_id = $1 AND seq = $2",
    "DELETE FROM message_blobs WHERE conversation_id = $1 AND seq = $2",
];

/// Hides a conversation's own messages up to a number. Parameters: $1 conversation, $2
/// number.
pub(in crate::store) const EXCLUDE_OWN: &str =
    "UPDATE conversations SET own_after = $2 WHERE id = $1";
