-- Number of removals from a thread. A write that was planned before a removal finds another number
-- when it has locked the row, and is planned again.
ALTER TABLE checkpoint_threads ADD COLUMN removals bigint NOT NULL DEFAULT 0;
