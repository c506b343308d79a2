-- The thread of a deleted conversation is renamed. Its rows are deleted in short transactions
-- afterwards, because all writes share one writer.
DROP TRIGGER conversation_checkpoints_removed;

CREATE TRIGGER conversation_checkpoints_removed AFTER DELETE ON conversations
BEGIN
    UPDATE checkpoint_threads SET conversation_id = 'removed ' || id WHERE conversation_id = old.id;
END;
