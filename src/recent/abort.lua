-- Takes an announcement back, because nothing was committed.
-- ARGV: token
return redis.call("HDEL", key, "p:" .. ARGV[1])
