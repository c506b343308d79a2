-- Renews a session. This is the script of every call in a session: it has no prefix, and reads the
-- session by one command. session_common.lua describes the fields.
-- KEYS[1]: session; ARGV: user whose session it must be, "" for any user; TTL in ms
-- Returns the session, or nil if it has ended or belongs to another user.
local key, claimed, ttl = KEYS[1], ARGV[1], ARGV[2]
local values = redis.pcall("HMGET", key,
  "user_id", "dept_id", "conversation_id", "created_at", "last_active_at", "expires_at")
local is_unreadable = values.err
if not is_unreadable and (not values[1] or claimed ~= "" and values[1] ~= claimed) then
  return nil
end
for i = 4, 6 do
  local time = values[i] or ""
  is_unreadable = is_unreadable or #time > 17 or not time:find("^%d+$")
end
-- A key with invalid content was not written by a sidecar and is deleted.
if is_unreadable or redis.call("PTTL", key) < 0 then
  redis.call("DEL", key)
  return nil
end
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
values[5], values[6] = string.format("%.0f", now), string.format("%.0f", now + ttl * 1000)
redis.call("HSET", key, "last_active_at", values[5], "expires_at", values[6])
redis.call("PEXPIRE", key, ttl)
values[2], values[3] = values[2] or "", values[3] or ""
return values
