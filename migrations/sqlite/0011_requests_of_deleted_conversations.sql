-- The requests of a deleted conversation are deleted in short transactions, because all writes share
-- one writer. SQLite drops no foreign key from a table, so that it is made anew.
CREATE TABLE new_requests (
    conversation_id TEXT    NOT NULL,
    request_id      TEXT    NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
    digest          BLOB    NOT NULL CHECK (length(digest) = 32),
    first_seq       INTEGER NOT NULL,
    last_seq        INTEGER NOT NULL,
    removed         INTEGER,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, request_id)
) STRICT, WITHOUT ROWID;

INSERT INTO new_requests (conversation_id, request_id, digest, first_seq, last_seq, removed,
                          created_at)
SELECT conversation_id, request_id, digest, first_seq, last_seq, removed, created_at FROM requests;

DROP TABLE requests;

ALTER TABLE new_requests RENAME TO requests;

-- The range from 0 to 0, which contains no message, stands for the requests of its source.
CREATE TABLE new_pending_removals (
    source_id TEXT    NOT NULL,
    after_seq INTEGER NOT NULL CHECK (after_seq >= 0),
    upto_seq  INTEGER NOT NULL CHECK (upto_seq > after_seq OR upto_seq = 0),
    -- Whether an import in progress may own the messages.
    is_import INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source_id, after_seq, upto_seq)
) STRICT, WITHOUT ROWID;

INSERT INTO new_pending_removals (source_id, after_seq, upto_seq, is_import)
SELECT source_id, after_seq, upto_seq, is_import FROM pending_removals;

DROP TABLE pending_removals;

ALTER TABLE new_pending_removals RENAME TO pending_removals;
