-- Drops the window after a commit that it does not show: a removal, or a write
-- that could not be announced or published. There were messages, so no publish
-- that is under way may start a window with the first one.
-- ARGV: life in ms, the reason, then the tokens to remove
local ttl = tonumber(ARGV[1])
for i = 3, #ARGV do
  redis.call("HDEL", key, "p:" .. ARGV[i])
end
if not raise_top(1) then
  return answer("out of memory")
end
drop(ARGV[2])
renew(ttl)
return answer("cold")
