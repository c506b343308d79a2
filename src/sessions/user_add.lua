-- Adds a session to its user's, and renews the set: it outlives each session in it.
-- ARGV: life in ms, session
redis.call("SADD", key, ARGV[2])
redis.call("PEXPIRE", key, ARGV[1])
