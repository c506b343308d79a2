-- Announces a write before it is committed.
-- ARGV from 4: token, time limit of the write in ms, TTL of the window in ms
local limit, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
if known.err then
  -- A key of another type was not written by a sidecar.
  redis.call("DEL", key)
  drop_reason = "unreadable"
end

-- The token is written first: when Redis is out of memory, the script ends here.
local values = { announcement(ARGV[4]), format_integer(clock() + limit) }
if is_confirmed and known[1] ~= claimed then
  values[3], values[4] = "user", claimed
end
redis.call("HSET", key, unpack(values))

-- A reader that holds a lease may have read the store before the commit.
redis.call("HDEL", key, "lease") -- guard: an announcement ends the lease
extend(math.max(ttl, limit))
return reply("announced")
