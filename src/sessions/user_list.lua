-- Reads the ids of a user's sessions, which include sessions that have ended.
return redis.call("SMEMBERS", key)
