-- The activity is unique because it is a number of a sequence: the index does not have to check it, and
-- a unique key of conversations can be required to contain their id.
SET LOCAL lock_timeout = '10s';
LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE;
DROP INDEX conversations_by_activity;
CREATE INDEX conversations_by_activity ON conversations (user_id, activity DESC);
