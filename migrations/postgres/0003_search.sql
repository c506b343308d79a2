-- What messages are searched by.

-- A table of its own, so that history is read no slower. The index by user leads
-- to all that a user has said, and a search looks at each of these: its cost
-- follows the user's messages, whatever others have. An inverted index (GIN) would
-- be searched for a word of everybody's, and be changed at each save for each word.
--
-- A document says itself whose it is, since a message can outlive its
-- conversation's row. It has no foreign key: checking one costs a save more than
-- the triggers below, which keep each message's document.
CREATE TABLE message_documents (
    -- Later documents have higher numbers: the order of equal ranks.
    id              bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    conversation_id uuid     NOT NULL,
    seq             bigint   NOT NULL,
    user_id         text     NOT NULL,
    dept_id         text,
    role            text     NOT NULL,
    -- The text search configuration that made the words. Searched with a query of
    -- the same one, documents of several configurations live side by side.
    config          text     NOT NULL CHECK (config IN ('english', 'simple')),
    words           tsvector NOT NULL,
    PRIMARY KEY (conversation_id, seq)
);

CREATE INDEX message_documents_by_user ON message_documents (user_id);

-- The configuration that new documents are made with: the program sets it on each
-- of its connections.
CREATE FUNCTION search_config() RETURNS text LANGUAGE sql STABLE
    RETURN CASE current_setting('conversation_memory.text_search_config', true)
           WHEN 'simple' THEN 'simple' ELSE 'english' END;

-- The beginning of a text, by which it is searched. The words of a longer one may
-- not fit into a tsvector, which would fail the save; and phrases need positions,
-- of which there are 16383.
CREATE FUNCTION searched_text(content text) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN left(content, 16384);

CREATE FUNCTION search_words(config text, content text) RETURNS tsvector LANGUAGE sql IMMUTABLE
    RETURN CASE config WHEN 'simple' THEN to_tsvector('pg_catalog.simple', searched_text(content))
                       ELSE to_tsvector('pg_catalog.english', searched_text(content)) END;

CREATE FUNCTION add_message_documents() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    made_with text := search_config();
BEGIN
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
    SELECT m.conversation_id, m.seq, c.user_id, c.dept_id, m.role, made_with,
           search_words(made_with, m.content)
    -- Row by row, by the primary key: the plan is kept, and one made for many rows
    -- would read all conversations at each save.
    FROM added m, LATERAL (
        SELECT o.user_id, o.dept_id FROM conversations o WHERE o.id = m.conversation_id OFFSET 0
    ) c
    WHERE m.content <> '';
    RETURN NULL;
END $$;

CREATE FUNCTION remove_message_documents() RETURNS trigger LANGUAGE plpgsql
    SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM message_documents d USING removed m
    WHERE d.conversation_id = m.conversation_id AND d.seq = m.seq;
    RETURN NULL;
END $$;

CREATE TRIGGER messages_added AFTER INSERT ON messages
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION add_message_documents();

CREATE TRIGGER messages_removed AFTER DELETE ON messages
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION remove_message_documents();

-- What was saved before. Saves wait meanwhile, about a minute for a million.
INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
SELECT m.conversation_id, m.seq, c.user_id, c.dept_id, m.role, search_config(),
       search_words(search_config(), m.content)
FROM messages m JOIN conversations c ON c.id = m.conversation_id
WHERE m.content <> ''
ORDER BY m.id;
