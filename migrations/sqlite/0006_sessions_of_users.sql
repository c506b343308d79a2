-- The reason is in migrations/postgres/0009_sessions_of_users.sql.
CREATE INDEX conversations_by_user_session
    ON conversations (last_session_id, user_id, session_attached DESC)
    WHERE last_session_id IS NOT NULL;

DROP INDEX conversations_by_session;
