-- Removals determine with one row of this index how far a segment of messages is shared, whatever
-- the number of conversations that share it.
CREATE INDEX lineage_by_segment ON lineage (source_id, after_seq, upto_seq);
DROP INDEX lineage_by_source;
