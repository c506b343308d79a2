-- Every script on a user's sessions begins with this. KEYS[1] is the set of
-- their ids; a key of another type is nothing of ours and goes.
local key = KEYS[1]
local kind = redis.call("TYPE", key).ok
if kind ~= "set" and kind ~= "none" then
  redis.call("DEL", key)
end
