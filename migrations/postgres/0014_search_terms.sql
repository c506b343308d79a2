-- The program computes the terms of messages, and sends them with each save. `config` then names the
-- analysis that made them. Documents that a trigger made, with the configurations 'english' and
-- 'simple', are searched as before until `reindex` makes them again.
ALTER TABLE message_documents DROP CONSTRAINT message_documents_config_check;

-- Adds the document of a message that a program of the previous version saves: it sends no terms, and
-- does not set its sessions to 'program'. Row by row, so that other saves do not collect their rows
-- for the trigger.
CREATE FUNCTION add_message_document() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    made_with text := search_config();
BEGIN
    INSERT INTO message_documents (conversation_id, seq, user_id, dept_id, role, config, words)
    SELECT new.conversation_id, new.seq, c.user_id, c.dept_id, new.role, made_with,
           search_words(made_with, new.content)
    FROM conversations c WHERE c.id = new.conversation_id;
    RETURN NULL;
END $$;

DROP TRIGGER messages_added ON messages;

CREATE TRIGGER messages_added AFTER INSERT ON messages FOR EACH ROW
    WHEN (new.content <> '' AND current_setting('conversation_memory.text_search_config', true)
                                IS DISTINCT FROM 'program')
    EXECUTE FUNCTION add_message_document();

DROP FUNCTION add_message_documents();
