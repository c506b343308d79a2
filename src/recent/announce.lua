-- Says that a write is about to be committed.
-- ARGV: token, how long the write may take in ms, the window's life in ms
local token, lifetime, ttl = "p:" .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- The note comes first: when Redis is out of memory the script ends here.
redis.call("HSET", key, token, whole_number(now + lifetime))
tokens[#tokens + 1] = token

-- Whoever reads the store now may read it before the commit.
redis.call("HDEL", key, "lease") -- guard: an announcement ends the lease
renew(ttl)
return answer("announced")
