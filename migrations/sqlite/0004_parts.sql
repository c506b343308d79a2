-- The schema of migrations/postgres/0004_parts.sql, which has the reasons.

ALTER TABLE messages ADD COLUMN name TEXT CHECK (length(name) BETWEEN 1 AND 255);
ALTER TABLE messages ADD COLUMN parts TEXT;
ALTER TABLE messages ADD COLUMN token_count INTEGER CHECK (token_count >= 0);
ALTER TABLE messages ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN redacted INTEGER NOT NULL DEFAULT 0;

CREATE INDEX messages_pinned ON messages (conversation_id, seq) WHERE pinned;

CREATE TABLE message_blobs (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    position        INTEGER NOT NULL CHECK (position >= 0),
    data            BLOB    NOT NULL,
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq) REFERENCES messages (conversation_id, seq) ON DELETE CASCADE
) STRICT;

ALTER TABLE conversations
    ADD COLUMN compacted_upto_seq INTEGER NOT NULL DEFAULT 0 CHECK (compacted_upto_seq >= 0);
ALTER TABLE conversations ADD COLUMN uncompacted_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN has_pinned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN title_seq INTEGER CHECK (title_seq >= 0);

CREATE TABLE compactions (
    conversation_id TEXT    NOT NULL PRIMARY KEY REFERENCES conversations (id) ON DELETE CASCADE,
    upto_seq        INTEGER NOT NULL CHECK (upto_seq > 0),
    id              TEXT    NOT NULL CHECK (length(id) = 36),
    summary         TEXT    NOT NULL,
    token_count     INTEGER NOT NULL CHECK (token_count >= 0),
    replaced_tokens INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;

-- Before, since the index needs the text that it is to forget.
CREATE TRIGGER message_redacted BEFORE UPDATE OF content ON messages
WHEN old.content <> '' AND new.content = '' BEGIN
    INSERT INTO message_words (message_words, rowid, owner, text)
    SELECT 'delete', t.id, t.owner, t.text
    FROM message_documents d JOIN message_texts t ON t.id = d.id
    WHERE d.conversation_id = old.conversation_id AND d.seq = old.seq;
    DELETE FROM message_documents
    WHERE conversation_id = old.conversation_id AND seq = old.seq;
END;
