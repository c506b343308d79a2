-- The schema of migrations/postgres/0012_checkpoints.sql, which says why.

CREATE TABLE checkpoint_threads (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id TEXT    NOT NULL UNIQUE,
    name            TEXT
) STRICT;

CREATE TABLE checkpoint_namespaces (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id INTEGER NOT NULL,
    namespace TEXT    NOT NULL,
    UNIQUE (thread_id, namespace)
) STRICT;

CREATE TABLE checkpoint_states (
    namespace_id INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    parent_id    BLOB,
    run_id       BLOB,
    body         BLOB    NOT NULL,
    PRIMARY KEY (namespace_id, id)
) STRICT;

CREATE INDEX checkpoints_by_run ON checkpoint_states (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE checkpoint_task_writes (
    number        INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace_id  INTEGER NOT NULL,
    checkpoint_id BLOB    NOT NULL,
    digest        BLOB    NOT NULL,
    body          BLOB    NOT NULL,
    UNIQUE (namespace_id, checkpoint_id, digest)
) STRICT;

CREATE TABLE checkpoint_values (
    namespace_id INTEGER NOT NULL,
    key          BLOB    NOT NULL,
    sequence     INTEGER,
    first_item   INTEGER,
    last_item    INTEGER,
    prefix       BLOB,
    body         BLOB    NOT NULL,
    PRIMARY KEY (namespace_id, key)
) STRICT;

CREATE UNIQUE INDEX checkpoint_values_by_sequence
    ON checkpoint_values (namespace_id, sequence, first_item) WHERE last_item > first_item;

CREATE TABLE checkpoint_contents (
    thread_id INTEGER NOT NULL,
    digest    BLOB    NOT NULL,
    size      INTEGER NOT NULL,
    data      BLOB    NOT NULL,
    PRIMARY KEY (thread_id, digest)
) STRICT;

CREATE TRIGGER conversation_checkpoints_removed AFTER DELETE ON conversations
BEGIN
    DELETE FROM checkpoint_states WHERE namespace_id IN (SELECT n.id FROM checkpoint_namespaces n
        JOIN checkpoint_threads t ON t.id = n.thread_id WHERE t.conversation_id = old.id);
    DELETE FROM checkpoint_task_writes WHERE namespace_id IN (SELECT n.id FROM checkpoint_namespaces n
        JOIN checkpoint_threads t ON t.id = n.thread_id WHERE t.conversation_id = old.id);
    DELETE FROM checkpoint_values WHERE namespace_id IN (SELECT n.id FROM checkpoint_namespaces n
        JOIN checkpoint_threads t ON t.id = n.thread_id WHERE t.conversation_id = old.id);
    DELETE FROM checkpoint_contents WHERE thread_id IN
        (SELECT t.id FROM checkpoint_threads t WHERE t.conversation_id = old.id);
    DELETE FROM checkpoint_namespaces WHERE thread_id IN
        (SELECT t.id FROM checkpoint_threads t WHERE t.conversation_id = old.id);
    DELETE FROM checkpoint_threads WHERE conversation_id = old.id;
END;
