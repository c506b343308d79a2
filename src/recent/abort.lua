-- Withdraws an announcement, because nothing was committed.
-- ARGV from 2: token, 1 to drop the window as well
redis.call("HDEL", key, announcement(ARGV[2]))
if ARGV[3] == "1" then
  drop("unknown_conversation")
  redis.call("HDEL", key, "user")
end
return reply("withdrawn")
