-- Writes a key for a moment. Fails if Redis refuses writes.
redis.call("SET", KEYS[1], server, "PX", 1000)
