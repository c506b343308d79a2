-- Ends the announcement of a write that was a replay of an earlier commit.
-- ARGV: token, TTL in ms, last sequence number of the earlier commit
local ttl, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local announced = redis.call("HDEL", key, announcement(ARGV[1])) == 1
if not raise_top(last) then
  return reply("out_of_memory")
end
local reason = not announced and "unannounced"
  or is_invalid and "unreadable"
  or is_foreign and "other_epoch"
  or hi and hi < last and "behind_replay"
if reason then
  drop(reason) -- guard: a window behind a replay is dropped
end
renew(ttl)
return reply(hi and "published" or "cold")
