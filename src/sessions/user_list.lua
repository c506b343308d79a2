-- Reads a page of the ids of a user's sessions, which include sessions that have ended. An id may
-- be on several pages.
-- ARGV: cursor, "0" for the first page; approximate number of ids
-- Returns the cursor of the next page, "0" after the last one, and the ids.
return redis.call("SSCAN", key, ARGV[1], "COUNT", ARGV[2])
