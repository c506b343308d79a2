-- Says that a write was a replay of one that was committed before.
-- ARGV: token, life in ms, the last number of that commit
local ttl, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local announced = redis.call("HDEL", key, "p:" .. ARGV[1]) == 1
if not raise_top(last) then
  return answer("out of memory")
end
local unfit = not announced and "unannounced"
  or broken and "unreadable"
  or hi and hi < last and "behind_replay"
if unfit then
  drop(unfit) -- guard: a window behind a replay is dropped
end
renew(ttl)
return answer(hi and "shown" or "cold")
