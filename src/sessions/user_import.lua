-- Adds sessions that were found elsewhere.
-- ARGV: maximum number of sessions, then pairs of last use and id
-- Returns the sessions that must end, at most 128: more than were given, so that those that an
-- interrupted import has left end, too.
for i = 2, #ARGV, 2 do
  local last_use = redis.call("ZSCORE", key, ARGV[i + 1])
  if not last_use or tonumber(last_use) < tonumber(ARGV[i]) then
    redis.call("ZADD", key, ARGV[i], ARGV[i + 1])
  end
end
redis.call("PEXPIRE", key, ttl)
return excess(ARGV[1], 128)
