-- Prefix of every script on a user's sessions.
--
-- KEYS[1] is a sorted set of the ids of a user's sessions. The score is the time of the last use, a
-- Unix time in microseconds. It can contain sessions that have ended, and lack one until its
-- next use. A key of another type was not written by a sidecar and is deleted.
-- ARGV[1] is the TTL in ms. The other arguments follow.
local key = KEYS[1]
local ttl = table.remove(ARGV, 1)
local kind = redis.call("TYPE", key).ok
if kind ~= "zset" and kind ~= "none" then
  redis.call("DEL", key)
end

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
-- Sessions that were not used since then have expired.
local expired = now - ttl * 1000

local function format_integer(number)
  return string.format("%.0f", number)
end

-- Removes sessions that have expired, at most `limit`.
local function remove_expired(limit)
  local ids = redis.call("ZRANGEBYSCORE", key, "-inf", format_integer(expired), "LIMIT", 0, limit)
  if #ids > 0 then
    redis.call("ZREM", key, unpack(ids))
  end
end

-- Returns the sessions beyond the maximum, those that were not used for the longest time, at most
-- `limit`. They remain in the set until they have ended.
local function excess(max, limit)
  local count = redis.call("ZCARD", key) - max
  if count <= 0 then
    return {}
  end
  return redis.call("ZRANGE", key, 0, math.min(count, limit) - 1)
end
