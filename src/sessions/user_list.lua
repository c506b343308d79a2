-- Reads the ids of a user's sessions, dead ones among them.
return redis.call("SMEMBERS", key)
