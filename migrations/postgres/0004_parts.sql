-- Typed parts of messages, pinned messages, redactions and compactions.

ALTER TABLE messages
    ADD COLUMN name        text    CHECK (char_length(name) BETWEEN 1 AND 255),
    -- The parts without their texts, which are in content, and without the data of blobs.
    ADD COLUMN parts       jsonb   CHECK (jsonb_typeof(parts) = 'array'),
    -- NULL for messages that were saved before tokens were counted.
    ADD COLUMN token_count integer CHECK (token_count >= 0),
    ADD COLUMN pinned      boolean NOT NULL DEFAULT false,
    ADD COLUMN redacted    boolean NOT NULL DEFAULT false;

-- Finds the pinned messages of a conversation. Few messages are pinned.
CREATE INDEX messages_pinned ON messages (conversation_id, seq) WHERE pinned;

-- Data of binary parts. It is a table of its own, so that a history is read without it.
CREATE TABLE message_blobs (
    conversation_id uuid    NOT NULL,
    seq             bigint  NOT NULL,
    -- Index of the part in its message.
    position        integer NOT NULL CHECK (position >= 0),
    data            bytea   NOT NULL,
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq) REFERENCES messages (conversation_id, seq) ON DELETE CASCADE
);

-- Images and audio are compressed already.
ALTER TABLE message_blobs ALTER COLUMN data SET STORAGE EXTERNAL;

ALTER TABLE conversations
    -- Number of the last message that histories replace by the summary in compactions.
    ADD COLUMN compacted_upto_seq bigint  NOT NULL DEFAULT 0 CHECK (compacted_upto_seq >= 0),
    -- Tokens of the messages that no summary stands for.
    ADD COLUMN uncompacted_tokens bigint  NOT NULL DEFAULT 0,
    -- Whether any message was ever pinned: other conversations are read without looking for them.
    ADD COLUMN has_pinned         boolean NOT NULL DEFAULT false,
    -- Number of the message that the title was derived from, with which it is removed; 0 for a
    -- title that was set; NULL if it is unknown.
    ADD COLUMN title_seq          bigint  CHECK (title_seq >= 0);

-- Summaries that stand for the first messages of a conversation in histories.
CREATE TABLE compactions (
    conversation_id uuid        PRIMARY KEY REFERENCES conversations (id) ON DELETE CASCADE,
    upto_seq        bigint      NOT NULL CHECK (upto_seq > 0),
    id              uuid        NOT NULL,
    summary         text        NOT NULL,
    token_count     integer     NOT NULL CHECK (token_count >= 0),
    -- Tokens of the messages that the summary stands for.
    replaced_tokens bigint      NOT NULL,
    created_at      timestamptz NOT NULL
);

-- A redacted message has no text, and is not found.
CREATE FUNCTION remove_message_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM message_documents d
    WHERE d.conversation_id = old.conversation_id AND d.seq = old.seq;
    RETURN NULL;
END $$;

CREATE TRIGGER message_redacted AFTER UPDATE OF content ON messages
    FOR EACH ROW WHEN (new.content = '') EXECUTE FUNCTION remove_message_document();
