-- What messages are searched by. See migrations/postgres/0003_search.sql.

CREATE TABLE message_documents (
    id              INTEGER NOT NULL PRIMARY KEY,
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    user_id         TEXT    NOT NULL,
    dept_id         TEXT,
    role            TEXT    NOT NULL,
    UNIQUE (conversation_id, seq)
) STRICT;

-- What the index below is made from. Its owner is one word, which each search asks
-- for: of everybody's messages with a word only the user's are looked at.
CREATE VIEW message_texts AS
SELECT d.id, hex(d.user_id) AS owner,
       replace(replace(substr(m.content, 1, 16384), '⟦', '['), '⟧', ']') AS text
FROM message_documents d
JOIN messages m ON m.conversation_id = d.conversation_id AND m.seq = d.seq;

-- Where another text search configuration is set, the program makes it anew with
-- another tokenizer.
CREATE VIRTUAL TABLE message_words USING fts5 (
    owner, text, content = 'message_texts', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 0'
);

CREATE TRIGGER message_added AFTER INSERT ON messages WHEN new.content <> '' BEGIN
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role)
    SELECT new.conversation_id, new.seq, c.user_id, c.dept_id, new.role
    FROM conversations c WHERE c.id = new.conversation_id;
    INSERT INTO message_words (rowid, owner, text)
    SELECT t.id, t.owner, t.text
    FROM message_documents d JOIN message_texts t ON t.id = d.id
    WHERE d.conversation_id = new.conversation_id AND d.seq = new.seq;
END;

-- Before, since the index is told what it is to forget.
CREATE TRIGGER message_removed BEFORE DELETE ON messages WHEN old.content <> '' BEGIN
    INSERT INTO message_words (message_words, rowid, owner, text)
    SELECT 'delete', t.id, t.owner, t.text
    FROM message_documents d JOIN message_texts t ON t.id = d.id
    WHERE d.conversation_id = old.conversation_id AND d.seq = old.seq;
    DELETE FROM message_documents
    WHERE conversation_id = old.conversation_id AND seq = old.seq;
END;

INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role)
SELECT m.conversation_id, m.seq, c.user_id, c.dept_id, m.role
FROM messages m JOIN conversations c ON c.id = m.conversation_id
WHERE m.content <> ''
ORDER BY m.id;

INSERT INTO message_words (message_words) VALUES ('rebuild');
