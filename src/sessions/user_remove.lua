-- Removes sessions from the user's set. ARGV: session ids
redis.call("SREM", key, unpack(ARGV))
