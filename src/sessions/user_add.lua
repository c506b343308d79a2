-- Adds a session to its user's, and renews the set: it outlives each session in it.
-- ARGV: life in ms, session
-- Returns some of the sessions when one was added and there are many.
local added = redis.call("SADD", key, ARGV[2])
redis.call("PEXPIRE", key, ARGV[1])
if added == 1 and redis.call("SCARD", key) > 64 then
  return redis.call("SRANDMEMBER", key, 8)
end
return {}
