-- Drops the window after a commit that it does not contain: a removal, or a write
-- that could not be announced or published. The conversation has had messages, so
-- no concurrent publish may start a window with the first one.
-- ARGV: TTL in ms, reason, then the tokens to withdraw
local ttl = tonumber(ARGV[1])
for i = 3, #ARGV do
  redis.call("HDEL", key, announcement(ARGV[i]))
end
if not raise_top(1) then
  return reply("out_of_memory")
end
drop(ARGV[2])
-- The conversation may have been deleted.
redis.call("HDEL", key, "user")
renew(ttl)
return reply("cold")
