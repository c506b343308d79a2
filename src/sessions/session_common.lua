-- Prefix of every script on a session.
--
-- KEYS[1] is the session, a hash of user_id, dept_id, conversation_id,
-- created_at, last_active_at and expires_at. Times are Unix times in microseconds.
-- ARGV[1] is the user whose session it must be, "" for any user. The other arguments follow.
local key = KEYS[1]
local claimed = table.remove(ARGV, 1)

local time = redis.call("TIME")
local now = string.format("%.0f", time[1] * 1000000 + time[2])

-- The owner is compared first, so that another user's session costs what a missing one costs.
local owner = redis.pcall("HGET", key, "user_id")
local is_unreadable = type(owner) == "table"
local is_foreign = not is_unreadable and owner and claimed ~= "" and owner ~= claimed

-- Returns the fields of the session, or nil if it has ended or belongs to another user. A key with
-- invalid content was not written by a sidecar and is deleted.
local function read()
  if not owner or is_foreign then
    return nil
  end
  local session = {}
  if not is_unreadable then
    local flat = redis.call("HGETALL", key)
    for i = 1, #flat, 2 do
      session[flat[i]] = flat[i + 1]
    end
  end
  local function is_time(field)
    return (session[field] or ""):match("^%d+$") and #session[field] <= 17
  end
  if is_time("created_at") and is_time("last_active_at")
    and is_time("expires_at") and redis.call("PTTL", key) >= 0 then
    return session
  end
  redis.call("DEL", key)
  return nil
end

-- Resets the TTL of the session.
local function renew(session, ttl)
  session.last_active_at = now
  session.expires_at = string.format("%.0f", tonumber(now) + ttl * 1000)
  redis.call("HSET", key, "last_active_at", now, "expires_at", session.expires_at)
  redis.call("PEXPIRE", key, ttl)
end

-- Encodes a session as the return value of a script.
local function reply(session)
  return {
    session.user_id,
    session.dept_id or "",
    session.conversation_id or "",
    session.created_at,
    session.last_active_at,
    session.expires_at,
  }
end
