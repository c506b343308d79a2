-- Terms of messages, which the program computes shortly after the messages are saved: see
-- crates/text-analysis. A document without terms is searched by the text of its message.

DROP TRIGGER message_added;
DROP TRIGGER message_removed;
DROP TRIGGER message_redacted;
DROP TABLE message_words;
DROP VIEW message_texts;

-- Identity of the analysis that made the terms.
ALTER TABLE message_documents ADD COLUMN analyzer TEXT;
ALTER TABLE message_documents ADD COLUMN terms BLOB;

-- Searches look at each document of a user.
CREATE INDEX message_documents_by_user ON message_documents (user_id);

CREATE INDEX message_documents_without_terms ON message_documents (id) WHERE terms IS NULL;

-- Identity of the analysis that has made the terms of all documents.
CREATE TABLE completed_analysis (
    only     INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    analyzer TEXT    NOT NULL
) STRICT;

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
