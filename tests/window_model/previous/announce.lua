-- Announces a write before it is committed.
-- ARGV: token, time limit of the write in ms, TTL of the window in ms
local token, limit, ttl = announcement(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

-- The token is written first: when Redis is out of memory, the script ends here.
redis.call("HSET", key, token, format_integer(now + limit))
if is_confirmed then
  redis.call("HSET", key, "user", claimed)
end
tokens[#tokens + 1] = token

-- A reader that holds a lease may have read the store before the commit.
redis.call("HDEL", key, "lease") -- guard: an announcement ends the lease
renew(ttl)
return reply("announced")
