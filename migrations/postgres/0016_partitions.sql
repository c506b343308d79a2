-- Messages, and what grows with them, are partitioned by a hash of their conversation, so that a
-- vacuum, the rebuilding of an index and the height of an index concern a part of them. A unique key
-- of a partitioned table contains its partition key: ids of messages are unique within their
-- conversation. All rows are copied, in one transaction. Reads and writes wait for its end:
-- docs/SCALING.md has the duration. The small rows of requests stay in one table, because a save takes
-- time for each partition that it opens.

-- If the program is killed, the server notices it and ends the migration. Not every server can.
DO $$
BEGIN
    SET LOCAL client_connection_check_interval = '5s';
EXCEPTION WHEN OTHERS THEN NULL;
END $$;

-- What would be lost with the previous tables.
DO $$
DECLARE
    tables CONSTANT regclass[] := ARRAY['messages', 'message_contexts', 'message_blobs',
                                        'message_documents']::regclass[];
    found  text;
BEGIN
    SELECT string_agg(kind || ' ' || name, ', ') INTO found FROM (
        SELECT 'row security of' AS kind, c.relname AS name FROM pg_class c
        WHERE c.oid = ANY (tables) AND c.relrowsecurity
        UNION ALL
        SELECT 'trigger', t.tgname FROM pg_trigger t
        WHERE t.tgrelid = ANY (tables) AND NOT t.tgisinternal
          AND t.tgname NOT IN ('messages_added', 'messages_removed', 'message_redacted')
        UNION ALL
        SELECT 'publication', p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
        WHERE r.prrelid = ANY (tables)
        UNION ALL
        SELECT 'tablespace of', c.relname FROM pg_class c
        WHERE c.oid = ANY (tables) AND c.reltablespace <> 0
    ) further;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'remove what was added to the tables of messages, and add it after the migration: %',
            found;
    END IF;
END $$;

-- While this waits for a long transaction, such as that of pg_dump, all others wait for this.
SET LOCAL lock_timeout = '10s';

-- Writes lock conversations first, and searches read documents before messages: in this order, hardly
-- a statement waits for one of these locks while it holds another one.
LOCK TABLE conversations IN EXCLUSIVE MODE;
LOCK TABLE message_documents, messages, message_contexts, message_blobs IN ACCESS EXCLUSIVE MODE;

-- The program's connections disable it.
SET LOCAL enable_seqscan = on;

DO $$
DECLARE
    partitions CONSTANT integer := 4;
    tables CONSTANT text[] := ARRAY['messages', 'message_contexts', 'message_blobs',
                                    'message_documents'];
    parent    text;
    partition text;
    previous  record;
    granted   record;
BEGIN
    FOREACH parent IN ARRAY tables LOOP
        SELECT c.relacl, c.relowner, c.relowner::regrole AS owner INTO previous
        FROM pg_class c WHERE c.oid = parent::regclass;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', parent, 'unpartitioned_' || parent);
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING CONSTRAINTS INCLUDING DEFAULTS '
                       'INCLUDING STORAGE) PARTITION BY HASH (conversation_id)',
                       parent, 'unpartitioned_' || parent);
        FOR number IN 0 .. partitions - 1 LOOP
            partition := parent || '_' || number;
            -- Rows hardly ever change. Vacuums of inserted rows freeze them, so that none has to read
            -- the whole partition again before transaction numbers wrap around.
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s) '
                           'WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_scale_factor = 0.05)',
                           partition, parent, partitions, number);
            EXECUTE format('ALTER TABLE %I OWNER TO %s', partition, previous.owner);
        END LOOP;
        EXECUTE format('ALTER TABLE %I OWNER TO %s', parent, previous.owner);
        -- Default privileges could include some that were revoked.
        FOR granted IN SELECT c.relname AS name,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
            FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
            WHERE a.grantee <> c.relowner
              AND (c.oid = parent::regclass
                   OR c.oid IN (SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = parent::regclass)) LOOP
            EXECUTE format('REVOKE ALL ON %I FROM %s', granted.name, granted.grantee);
        END LOOP;
        -- Roles that do not own the tables keep their privileges.
        FOR granted IN SELECT a.privilege_type AS privilege, a.is_grantable,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
            FROM aclexplode(previous.relacl) a WHERE a.grantee <> previous.relowner LOOP
            EXECUTE format('GRANT %s ON %I TO %s', granted.privilege, parent, granted.grantee)
                || CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
        END LOOP;
    END LOOP;

    -- Partitions have no identity columns before PostgreSQL 17.
    CREATE SEQUENCE message_document_ids AS bigint;
    PERFORM setval('message_document_ids', nextval(pg_get_serial_sequence(
                       'unpartitioned_message_documents', 'id')), false);
    ALTER TABLE message_documents ALTER COLUMN id SET DEFAULT nextval('message_document_ids');
    EXECUTE format('ALTER SEQUENCE message_document_ids OWNER TO %s', previous.owner);
    ALTER SEQUENCE message_document_ids OWNED BY message_documents.id;
    FOR granted IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
        WHERE c.oid = 'message_document_ids'::regclass AND a.grantee <> c.relowner LOOP
        EXECUTE format('REVOKE ALL ON SEQUENCE message_document_ids FROM %s', granted.grantee);
    END LOOP;
    FOR granted IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.oid = 'message_documents'::regclass AND a.privilege_type = 'INSERT'
          AND a.grantee <> c.relowner LOOP
        EXECUTE 'GRANT USAGE ON SEQUENCE message_document_ids TO ' || granted.grantee;
    END LOOP;

    FOREACH parent IN ARRAY tables LOOP
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', parent, 'unpartitioned_' || parent);
    END LOOP;
END $$;

-- The tables that reads of other sessions wait for.
SELECT set_config('conversation_memory.previous_tables', string_agg(c.oid::text, ' '), true)
FROM pg_class c
WHERE c.oid IN ('unpartitioned_messages'::regclass, 'unpartitioned_message_contexts'::regclass,
                'unpartitioned_message_blobs'::regclass, 'unpartitioned_message_documents'::regclass);

-- Messages last: the foreign keys of the others refer to them.
DROP TABLE unpartitioned_message_contexts, unpartitioned_message_blobs,
    unpartitioned_message_documents, unpartitioned_messages;

ALTER TABLE messages ADD PRIMARY KEY (conversation_id, seq);
-- The id first, which increases with time: new entries are in the last pages of the index.
ALTER TABLE messages ADD CONSTRAINT messages_id_key UNIQUE (id, conversation_id);
CREATE INDEX messages_pinned ON messages (conversation_id, seq) WHERE pinned;
ALTER TABLE message_contexts ADD PRIMARY KEY (conversation_id, seq, position);
ALTER TABLE message_blobs ADD PRIMARY KEY (conversation_id, seq, position);
ALTER TABLE message_documents ADD PRIMARY KEY (conversation_id, seq);
CREATE INDEX message_documents_by_user ON message_documents (user_id);

CREATE TRIGGER messages_added AFTER INSERT ON messages FOR EACH ROW
    WHEN (new.content <> '' AND current_setting('conversation_memory.text_search_config', true)
                                IS DISTINCT FROM 'program')
    EXECUTE FUNCTION add_message_document();

CREATE TRIGGER message_redacted AFTER UPDATE OF content ON messages
    FOR EACH ROW WHEN (new.content = '') EXECUTE FUNCTION remove_message_document();

-- Removes what belongs to deleted messages. A foreign key would check each insertion, and delete for
-- each message by itself. A parameter, unlike a join, selects one partition before the plan begins.
CREATE FUNCTION remove_message_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    conversation uuid;
    numbers      bigint[];
BEGIN
    FOR conversation, numbers IN
        SELECT m.conversation_id, array_agg(m.seq) FROM removed m GROUP BY m.conversation_id
    LOOP
        DELETE FROM message_documents d WHERE d.conversation_id = conversation AND d.seq = ANY (numbers);
        DELETE FROM message_contexts x WHERE x.conversation_id = conversation AND x.seq = ANY (numbers);
        DELETE FROM message_blobs b WHERE b.conversation_id = conversation AND b.seq = ANY (numbers);
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER messages_removed AFTER DELETE ON messages
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION remove_message_rows();

DROP FUNCTION remove_message_documents();

-- Ranges of the messages of one conversation. They are functions because a plan that reads a
-- partitioned table by a join begins with all partitions, which takes more time than the read, and
-- because a session that plans its statements each time, behind a pooler, keeps the plans of functions.
CREATE FUNCTION newest_messages(source uuid, after_seq bigint, upto_seq bigint, maximum bigint)
    RETURNS SETOF messages LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT m.* FROM messages m
        WHERE m.conversation_id = source AND m.seq > after_seq AND m.seq <= upto_seq
        ORDER BY m.seq DESC LIMIT maximum;
END $$;

CREATE FUNCTION oldest_messages(source uuid, after_seq bigint, upto_seq bigint, maximum bigint)
    RETURNS SETOF messages LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT m.* FROM messages m
        WHERE m.conversation_id = source AND m.seq > after_seq AND m.seq <= upto_seq
        ORDER BY m.seq LIMIT maximum;
END $$;

CREATE FUNCTION newest_pinned_messages(source uuid, after_seq bigint, upto_seq bigint, maximum bigint)
    RETURNS SETOF messages LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT m.* FROM messages m
        WHERE m.conversation_id = source AND m.pinned AND m.seq > after_seq AND m.seq <= upto_seq
        ORDER BY m.seq DESC LIMIT maximum;
END $$;

CREATE FUNCTION contexts_of_messages(source uuid, after_seq bigint, upto_seq bigint)
    RETURNS SETOF message_contexts LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT x.* FROM message_contexts x
        WHERE x.conversation_id = source AND x.seq > after_seq AND x.seq <= upto_seq;
END $$;

-- Messages with ids that a conversation contains although they are stored under another one. Each id is
-- looked up by itself, so that no plan reads a whole range instead.
CREATE FUNCTION inherited_messages(conversation uuid, ids uuid[])
    RETURNS SETOF messages LANGUAGE plpgsql STABLE AS $$
DECLARE
    segment record;
BEGIN
    FOR segment IN SELECT l.source_id, l.after_seq, l.upto_seq FROM lineage l
        WHERE l.conversation_id = conversation AND l.source_id <> conversation
    LOOP
        RETURN QUERY SELECT m.* FROM unnest(ids) AS i (id) CROSS JOIN LATERAL (
                SELECT s.* FROM messages s WHERE s.conversation_id = segment.source_id AND s.id = i.id
                OFFSET 0
            ) AS m
            WHERE m.seq > segment.after_seq AND m.seq <= segment.upto_seq;
    END LOOP;
END $$;

-- Whoever may read the tables may call the functions that read them.
DO $$
DECLARE
    function regprocedure;
    granted  record;
BEGIN
    FOREACH function IN ARRAY ARRAY[
        'newest_messages(uuid,bigint,bigint,bigint)', 'oldest_messages(uuid,bigint,bigint,bigint)',
        'newest_pinned_messages(uuid,bigint,bigint,bigint)', 'contexts_of_messages(uuid,bigint,bigint)',
        'inherited_messages(uuid,uuid[])']::regprocedure[] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', function,
                       (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = 'messages'::regclass));
        FOR granted IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
            FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
            WHERE c.oid = 'messages'::regclass AND a.privilege_type = 'SELECT' LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, granted.grantee);
        END LOOP;
    END LOOP;
END $$;

-- Partitioned tables are not analyzed automatically. Empty ones are not analyzed, because plans that
-- are made for no rows would be kept when there are many.
DO $$
BEGIN
    IF EXISTS (SELECT FROM messages) THEN ANALYZE messages; END IF;
    IF EXISTS (SELECT FROM message_contexts) THEN ANALYZE message_contexts; END IF;
    IF EXISTS (SELECT FROM message_blobs) THEN ANALYZE message_blobs; END IF;
    IF EXISTS (SELECT FROM message_documents) THEN ANALYZE message_documents; END IF;
END $$;

-- A transaction with an earlier snapshot, such as that of an export, waits for the previous tables, and
-- would find the new ones empty: it fails instead, and is repeated.
DO $$
BEGIN
    PERFORM pg_cancel_backend(l.pid) FROM pg_locks l
    WHERE NOT l.granted AND l.relation::text =
        ANY (string_to_array(current_setting('conversation_memory.previous_tables'), ' '));
EXCEPTION WHEN insufficient_privilege THEN NULL;
END $$;
