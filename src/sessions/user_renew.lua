-- Records a use of a session if the set contains it, so that the set gets no ids of sessions that
-- do not exist. This is the script of every call in a session: it has no prefix. user_common.lua
-- describes the set.
-- KEYS[1]: set; ARGV: TTL in ms, session
-- Returns 1 if the set contains the session.
local key, ttl = KEYS[1], ARGV[1]
local last_use = redis.pcall("ZSCORE", key, ARGV[2])
if type(last_use) == "table" then
  -- A key of another type was not written by a sidecar.
  redis.call("DEL", key)
  return 0
end
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
if not last_use or tonumber(last_use) <= now - ttl * 1000 then
  return 0
end
redis.call("ZADD", key, string.format("%.0f", now), ARGV[2])
redis.call("PEXPIRE", key, ttl)
return 1
