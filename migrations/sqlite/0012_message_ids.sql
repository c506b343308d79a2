-- Ids of messages are unique within their conversation, as in migrations/postgres/0016_partitions.sql.
-- SQLite drops no constraint from a table, so that it and the tables that refer to it are made anew.
CREATE TABLE new_messages (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL CHECK (seq > 0),
    id              TEXT    NOT NULL CHECK (length(id) = 36),
    role            TEXT    NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    content         TEXT    NOT NULL,
    tokens_used     INTEGER CHECK (tokens_used >= 0),
    latency_ms      INTEGER CHECK (latency_ms >= 0),
    metadata        TEXT,
    created_at      INTEGER NOT NULL,
    name            TEXT    CHECK (length(name) BETWEEN 1 AND 255),
    parts           TEXT,
    token_count     INTEGER CHECK (token_count >= 0),
    pinned          INTEGER NOT NULL DEFAULT 0,
    redacted        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation_id, seq),
    -- The id first, which increases with time: new entries are in the last pages of the index.
    UNIQUE (id, conversation_id)
) STRICT;

INSERT INTO new_messages (conversation_id, seq, id, role, content, tokens_used, latency_ms, metadata,
                          created_at, name, parts, token_count, pinned, redacted)
SELECT conversation_id, seq, id, role, content, tokens_used, latency_ms, metadata, created_at, name,
       parts, token_count, pinned, redacted
FROM messages ORDER BY rowid;

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
FROM message_contexts ORDER BY rowid;

CREATE TABLE new_blobs (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    position        INTEGER NOT NULL CHECK (position >= 0),
    data            BLOB    NOT NULL,
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq)
        REFERENCES new_messages (conversation_id, seq) ON DELETE CASCADE
) STRICT;

INSERT INTO new_blobs (conversation_id, seq, position, data)
SELECT conversation_id, seq, position, data FROM message_blobs ORDER BY rowid;

-- The triggers of a table are dropped with it; before, so that they do not remove the documents.
DROP TRIGGER message_added;
DROP TRIGGER message_removed;
DROP TRIGGER message_redacted;
DROP TABLE message_contexts;
DROP TABLE message_blobs;
DROP TABLE messages;
ALTER TABLE new_messages RENAME TO messages;
ALTER TABLE new_contexts RENAME TO message_contexts;
ALTER TABLE new_blobs RENAME TO message_blobs;

CREATE INDEX messages_pinned ON messages (conversation_id, seq) WHERE pinned;

CREATE TRIGGER message_added AFTER INSERT ON messages WHEN new.content <> '' BEGIN
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role)
    SELECT new.conversation_id, new.seq, c.user_id, c.dept_id, new.role
    FROM conversations c WHERE c.id = new.conversation_id;
END;

CREATE TRIGGER message_removed AFTER DELETE ON messages WHEN old.content <> '' BEGIN
    DELETE FROM message_documents
    WHERE conversation_id = old.conversation_id AND seq = old.seq;
END;

CREATE TRIGGER message_redacted AFTER UPDATE OF content ON messages
WHEN old.content <> '' AND new.content = '' BEGIN
    DELETE FROM message_documents
    WHERE conversation_id = old.conversation_id AND seq = old.seq;
END;

-- The activity is unique, because it is a number of a counter.
DROP INDEX conversations_by_activity;
CREATE INDEX conversations_by_activity ON conversations (user_id, activity DESC);
