-- Withdraws an announcement, because nothing was committed.
-- ARGV: token, 1 to drop the window as well
redis.call("HDEL", key, announcement(ARGV[1]))
if ARGV[2] == "1" then
  drop("unknown_conversation")
  redis.call("HDEL", key, "user")
end
return reply("withdrawn")
