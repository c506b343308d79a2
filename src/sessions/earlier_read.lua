-- Reads some of the sessions that an earlier version recorded for a user, in a set without order.
-- ARGV: number of ids
local kind = redis.call("TYPE", KEYS[1]).ok
if kind ~= "set" then
  redis.call("DEL", KEYS[1])
  return {}
end
return redis.call("SRANDMEMBER", KEYS[1], ARGV[1])
