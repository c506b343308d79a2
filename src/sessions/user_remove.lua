-- Removes sessions. ARGV: session ids
redis.call("ZREM", key, unpack(ARGV))
