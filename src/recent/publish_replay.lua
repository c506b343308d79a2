-- Says that a write was a replay of one that was committed before.
-- ARGV: token, life in ms, the last number of that commit
local ttl, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local announced = redis.call("HDEL", key, "p:" .. ARGV[1]) == 1
if not raise_top(last) then
  return "out of memory"
end
if not announced or broken or (hi and hi < last) then
  drop() -- guard: a window behind a replay is dropped
end
renew(ttl)
return hi and "shown" or "cold"
