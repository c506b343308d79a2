-- Takes an announcement back, because nothing was committed.
-- ARGV: token, 1 to drop the window too
redis.call("HDEL", key, "p:" .. ARGV[1])
if ARGV[2] == "1" then
  drop("unknown_conversation")
end
return answer("taken back")
