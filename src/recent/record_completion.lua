-- Records whether a process could complete the pending invalidations. If not, the others try themselves.
-- ARGV: history of the store, interval in ms, 1 if all invalidations are complete
if ARGV[3] == "1" then
  redis.call("HSET", KEYS[1], "store", ARGV[1])
  redis.call("PEXPIRE", KEYS[1], ARGV[2])
else
  redis.call("DEL", KEYS[1])
end
return 1
