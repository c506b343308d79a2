-- Ends the announcement of a write that was a replay of an earlier commit.
-- ARGV from 2: token, TTL in ms, last sequence number of the earlier commit
local last = tonumber(ARGV[4])
local announced = redis.call("HDEL", key, announcement(ARGV[2])) == 1
if not raise_top(last) then
  return delete_full()
end
local reason = not announced and "unannounced"
  or fault
  or hi and hi < last and "behind_replay"
if reason then
  drop(reason) -- guard: a window behind a replay is dropped
end
extend(tonumber(ARGV[3]))
return reply(hi and "published" or "cold")
