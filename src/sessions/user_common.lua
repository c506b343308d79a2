-- Prefix of every script on a user's sessions. KEYS[1] is the set of their ids. A
-- key of another type was not written by a sidecar and is deleted.
local key = KEYS[1]
local kind = redis.call("TYPE", key).ok
if kind ~= "set" and kind ~= "none" then
  redis.call("DEL", key)
end
