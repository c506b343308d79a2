-- no-transaction
-- Creates the documents of texts with long runs of characters again, with the words of 0007. Each
-- batch is a transaction of its own, which locks only the documents that it changes. The migration
-- can be interrupted and repeated.
DO $$
DECLARE
    -- Writes that may still use the previous function, and whose messages are not visible yet.
    earlier CONSTANT text[] := ARRAY(
        SELECT l.virtualtransaction FROM pg_locks l
        WHERE l.relation = 'message_documents'::regclass AND l.mode = 'RowExclusiveLock'
          AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()));
    previous_conversation uuid := '00000000-0000-0000-0000-000000000000';
    previous_seq bigint := 0;
BEGIN
    -- They end within a minute; an import can take longer, and is not waited for.
    FOR attempt IN 1..600 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_locks l WHERE l.virtualtransaction = ANY (earlier));
        PERFORM pg_sleep(0.1);
    END LOOP;
    LOOP
        WITH batch AS MATERIALIZED (
            SELECT m.conversation_id, m.seq, left(m.content, 16384) AS content FROM messages m
            WHERE (m.conversation_id, m.seq) > (previous_conversation, previous_seq)
            ORDER BY m.conversation_id, m.seq LIMIT 1000
        ), repaired AS (
            UPDATE message_documents d SET words = search_words(d.config, b.content)
            FROM batch b
            WHERE d.conversation_id = b.conversation_id AND d.seq = b.seq
              AND searched_text(b.content) <> b.content
        )
        SELECT b.conversation_id, b.seq INTO previous_conversation, previous_seq
        FROM batch b ORDER BY b.conversation_id DESC, b.seq DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        COMMIT;
    END LOOP;
END $$;
