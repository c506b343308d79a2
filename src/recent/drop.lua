-- Drops the window after a commit that it does not contain: a removal, or a write
-- that could not be announced or published. The conversation has had messages, so
-- no concurrent publish may start a window with the first one.
-- ARGV from 2: TTL in ms, reason, then the tokens to withdraw
for i = 4, #ARGV do
  redis.call("HDEL", key, announcement(ARGV[i]))
end
if not raise_top(1) then
  return delete_full()
end
drop(ARGV[3])
-- The conversation may have been deleted.
redis.call("HDEL", key, "user")
extend(tonumber(ARGV[2]))
return reply("cold")
