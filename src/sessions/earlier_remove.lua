-- Removes sessions from the set of an earlier version. ARGV: session ids
redis.call("SREM", KEYS[1], unpack(ARGV))
