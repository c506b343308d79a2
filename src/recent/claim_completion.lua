-- Claims the completion of the pending invalidations for one process, unless another one with the same
-- history of the store has claimed or recorded it within the interval.
--
-- KEYS[1] is a hash with one field, which expires at the end of the interval:
--   store      history of the store in which all invalidations are being completed
-- ARGV: history of the store, interval in ms
if redis.call("HGET", KEYS[1], "store") == ARGV[1] then
  return 0
end
redis.call("HSET", KEYS[1], "store", ARGV[1])
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return 1
