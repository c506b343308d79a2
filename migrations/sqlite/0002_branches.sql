-- The schema of migrations/postgres/0002_branches.sql, which says why.

ALTER TABLE conversations
    ADD COLUMN own_after INTEGER NOT NULL DEFAULT 0 CHECK (own_after >= 0);

CREATE INDEX conversations_by_parent ON conversations (parent_id, activity DESC)
    WHERE parent_id IS NOT NULL;

CREATE TABLE lineage (
    conversation_id TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    source_id       TEXT    NOT NULL,
    after_seq       INTEGER NOT NULL CHECK (after_seq >= 0),
    upto_seq        INTEGER NOT NULL CHECK (upto_seq > after_seq),
    PRIMARY KEY (conversation_id, upto_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX lineage_by_source ON lineage (source_id, upto_seq);

-- SQLite drops no foreign key from a table, so that both are made anew: dropped
-- under their own names they would take the contexts along.
CREATE TABLE new_messages (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL CHECK (seq > 0),
    id              TEXT    NOT NULL UNIQUE CHECK (length(id) = 36),
    role            TEXT    NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    content         TEXT    NOT NULL,
    tokens_used     INTEGER CHECK (tokens_used >= 0),
    latency_ms      INTEGER CHECK (latency_ms >= 0),
    metadata        TEXT,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT;

INSERT INTO new_messages (conversation_id, seq, id, role, content, tokens_used, latency_ms,
                          metadata, created_at)
SELECT conversation_id, seq, id, role, content, tokens_used, latency_ms, metadata, created_at
FROM messages;

CREATE TABLE new_contexts (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    position        INTEGER NOT NULL CHECK (position >= 0),
    doc_id          TEXT    NOT NULL CHECK (length(doc_id) <= 512),
    content         TEXT    NOT NULL,
    score           REAL,
    metadata        TEXT,
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq)
        REFERENCES new_messages (conversation_id, seq) ON DELETE CASCADE
) STRICT;

INSERT INTO new_contexts (conversation_id, seq, position, doc_id, content, score, metadata)
SELECT conversation_id, seq, position, doc_id, content, score, metadata
FROM message_contexts;

DROP TABLE message_contexts;
DROP TABLE messages;
ALTER TABLE new_messages RENAME TO messages;
ALTER TABLE new_contexts RENAME TO message_contexts;
