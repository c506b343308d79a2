-- Removals of checkpoints from threads. The rows are deleted in short transactions, because all writes
-- share one writer. Nothing else is written to the thread until its removal has ended.
CREATE TABLE checkpoint_removals (
    thread_id INTEGER PRIMARY KEY,
    -- 0 while the checkpoints are being marked, 1 when all are and none is read any more, 2 if the removal
    -- failed before that.
    state     INTEGER NOT NULL DEFAULT 0,
    -- Distinguishes the removal from later ones of the thread.
    token     BLOB    NOT NULL
) STRICT;

-- Checkpoints that a removal deletes.
CREATE TABLE checkpoint_removed_states (
    namespace_id INTEGER NOT NULL,
    id           BLOB    NOT NULL,
    PRIMARY KEY (namespace_id, id)
) STRICT, WITHOUT ROWID;
