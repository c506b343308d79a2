-- Adds a session that is used now, and resets the TTL of the set, so that the set outlives
-- each session in it.
-- ARGV: session, maximum number of sessions
-- Returns the sessions that must end, at most 16.
redis.call("ZADD", key, format_integer(now), ARGV[1])
redis.call("PEXPIRE", key, ttl)
remove_expired(32)
return excess(ARGV[2], 16)
