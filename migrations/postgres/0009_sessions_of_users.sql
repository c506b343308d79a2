-- A session is found among the conversations of its user only: several users can record the same
-- id, and each finds the conversation of their own session at the same cost.
CREATE INDEX conversations_by_user_session
    ON conversations (last_session_id, user_id, session_attached DESC)
    WHERE last_session_id IS NOT NULL;

DROP INDEX conversations_by_session;
