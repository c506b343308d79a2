-- See migrations/postgres/0006_lineage_segments.sql.
CREATE INDEX lineage_by_segment ON lineage (source_id, after_seq, upto_seq);
DROP INDEX lineage_by_source;

-- Messages that no conversation contains and that are still stored: those of large removals, and of
-- imports in progress. They are removed in short transactions, so that other writes do not wait.
CREATE TABLE pending_removals (
    source_id TEXT    NOT NULL,
    after_seq INTEGER NOT NULL CHECK (after_seq >= 0),
    upto_seq  INTEGER NOT NULL CHECK (upto_seq > after_seq),
    -- Whether an import in progress may own the messages.
    is_import INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source_id, after_seq, upto_seq)
) STRICT, WITHOUT ROWID;
