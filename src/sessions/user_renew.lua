-- Records a use of a session if the set contains it, so that the set gets no ids of sessions that
-- do not exist.
-- ARGV: session
-- Returns 1 if the set contains the session.
local last_use = redis.call("ZSCORE", key, ARGV[1])
if not last_use or tonumber(last_use) <= expired then
  return 0
end
redis.call("ZADD", key, format_integer(now), ARGV[1])
redis.call("PEXPIRE", key, ttl)
return 1
