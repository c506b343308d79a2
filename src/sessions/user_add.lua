-- Adds a session to the user's set and resets the TTL of the set, so that the set outlives
-- each session in it.
-- ARGV: TTL in ms, session
-- Returns a sample of the sessions if one was added to a large set.
local added = redis.call("SADD", key, ARGV[2])
redis.call("PEXPIRE", key, ARGV[1])
if added == 1 and redis.call("SCARD", key) > 64 then
  return redis.call("SRANDMEMBER", key, 8)
end
return {}
