-- Conversations whose recent windows must be dropped: a write could not announce itself in the
-- window, or was executed after its announcement had expired. Any process that reaches Redis drops
-- the window and removes the row. The conversation may have been deleted.
CREATE TABLE pending_invalidations (
    conversation_id uuid   PRIMARY KEY,
    -- Transaction that recorded it last. A row that was recorded again is not removed.
    mark            bigint NOT NULL DEFAULT txid_current()
);

-- The table is empty most of the time and changes quickly when it is not.
ALTER TABLE pending_invalidations
    SET (autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0.1);
