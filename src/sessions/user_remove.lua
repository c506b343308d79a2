-- Removes sessions from their user's. ARGV: sessions
redis.call("SREM", key, unpack(ARGV))
