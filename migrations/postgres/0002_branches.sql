-- Branches: conversations that go on from a message of another one, whose
-- messages they share. Nothing is copied.

-- A conversation's messages are what is kept under its own id after this number,
-- and before them what its lineage names.
ALTER TABLE conversations
    ADD COLUMN own_after bigint NOT NULL DEFAULT 0 CHECK (own_after >= 0);

CREATE INDEX conversations_by_parent ON conversations (parent_id, activity DESC)
    WHERE parent_id IS NOT NULL;

-- What a conversation shows of the messages that are kept under source_id: those
-- with numbers above after_seq, up to upto_seq. The ranges of one conversation
-- do not overlap. A conversation whose truncation hid messages that a branch
-- still shows has a range of its own ones.
CREATE TABLE lineage (
    conversation_id uuid   NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- No foreign key: what is shared outlives the conversation it was said in.
    source_id       uuid   NOT NULL,
    after_seq       bigint NOT NULL CHECK (after_seq >= 0),
    upto_seq        bigint NOT NULL CHECK (upto_seq > after_seq),
    PRIMARY KEY (conversation_id, upto_seq)
);

-- Finds who shows a message, before it is removed.
CREATE INDEX lineage_by_source ON lineage (source_id, upto_seq);

-- Messages stay for as long as any conversation shows them: removals say so
-- themselves.
ALTER TABLE messages DROP CONSTRAINT messages_conversation_id_fkey;
