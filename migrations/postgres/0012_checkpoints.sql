-- Checkpoints of agent graphs. Keys are short, because a thread has a checkpoint for each step.
-- Nothing refers to a row by a foreign key: the check takes time in each write, and all writes hold
-- the lock of the conversation's row.

CREATE TABLE checkpoint_threads (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id uuid   NOT NULL UNIQUE,
    -- The thread's own name.
    name            text
);

CREATE TABLE checkpoint_namespaces (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    thread_id bigint NOT NULL,
    namespace text   NOT NULL CHECK (octet_length(namespace) <= 1024),
    UNIQUE (thread_id, namespace)
);

CREATE TABLE checkpoint_states (
    namespace_id bigint NOT NULL,
    id           uuid   NOT NULL,
    parent_id    uuid,
    -- Digest of the run's id.
    run_id       uuid,
    -- Everything else, encoded by src/store/checkpoints/encoding.rs.
    body         bytea  NOT NULL,
    PRIMARY KEY (namespace_id, id)
);

CREATE INDEX checkpoints_by_run ON checkpoint_states (run_id) WHERE run_id IS NOT NULL;

-- Each call that stores writes of a task is a row. The writes of a task are those of its rows, in the
-- order of their numbers.
CREATE TABLE checkpoint_task_writes (
    namespace_id  bigint NOT NULL,
    checkpoint_id uuid   NOT NULL,
    -- Digest of the row's content: a retry adds no row.
    digest        uuid   NOT NULL,
    number        bigint GENERATED ALWAYS AS IDENTITY,
    body          bytea  NOT NULL,
    PRIMARY KEY (namespace_id, checkpoint_id, digest)
);

-- Values of channels by version. The versions of a list share the rows of a sequence: a version
-- consists of its prefix, which are parts of other sequences, and of the items of its own sequence
-- up to `last_item`. Its row has the items after `first_item`.
CREATE TABLE checkpoint_values (
    namespace_id bigint  NOT NULL,
    -- Digest of channel and version.
    key          uuid    NOT NULL,
    -- NULL for a value that is no list.
    sequence     integer,
    first_item   integer,
    last_item    integer,
    prefix       bytea,
    body         bytea   NOT NULL,
    PRIMARY KEY (namespace_id, key),
    CHECK ((sequence IS NULL) = (first_item IS NULL) AND (sequence IS NULL) = (last_item IS NULL)),
    CHECK (first_item >= 0 AND last_item >= first_item)
);

CREATE UNIQUE INDEX checkpoint_values_by_sequence
    ON checkpoint_values (namespace_id, sequence, first_item) WHERE last_item > first_item;

-- Data of values and writes, once per thread.
CREATE TABLE checkpoint_contents (
    thread_id bigint  NOT NULL,
    digest    uuid    NOT NULL,
    -- Number of bytes that the data has when it is not compressed.
    size      integer NOT NULL,
    data      bytea   NOT NULL,
    PRIMARY KEY (thread_id, digest)
);

-- They are compressed already.
ALTER TABLE checkpoint_states ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE checkpoint_task_writes ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE checkpoint_values ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE checkpoint_contents ALTER COLUMN data SET STORAGE EXTERNAL;

-- Removes the thread of a deleted conversation, also if a program of the previous version deletes it.
CREATE FUNCTION remove_checkpoints() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    thread     bigint;
    namespaces bigint[];
BEGIN
    DELETE FROM checkpoint_threads t WHERE t.conversation_id = old.id RETURNING t.id INTO thread;
    IF thread IS NULL THEN
        RETURN NULL;
    END IF;
    WITH removed AS (
        DELETE FROM checkpoint_namespaces n WHERE n.thread_id = thread RETURNING n.id
    )
    SELECT array_agg(r.id) INTO namespaces FROM removed r;
    DELETE FROM checkpoint_states c WHERE c.namespace_id = ANY (namespaces);
    DELETE FROM checkpoint_task_writes w WHERE w.namespace_id = ANY (namespaces);
    DELETE FROM checkpoint_values v WHERE v.namespace_id = ANY (namespaces);
    DELETE FROM checkpoint_contents d WHERE d.thread_id = thread;
    RETURN NULL;
END $$;

CREATE TRIGGER conversation_checkpoints_removed AFTER DELETE ON conversations
    FOR EACH ROW EXECUTE FUNCTION remove_checkpoints();
