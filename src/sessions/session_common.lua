-- Every script on a session begins with this.
--
-- KEYS[1] is the session, a hash of user_id, dept_id, conversation_id,
-- created_at, last_active_at and expires_at, the times in microseconds.
local key = KEYS[1]

local time = redis.call("TIME")
local now = string.format("%.0f", time[1] * 1000000 + time[2])

-- The session's fields, or nil when it is not live. What makes no sense is
-- nothing of ours: it goes.
local function read()
  local flat = redis.pcall("HGETALL", key)
  if not flat.err and #flat == 0 then
    return nil
  end
  local session = {}
  for i = 1, #flat, 2 do
    session[flat[i]] = flat[i + 1]
  end
  local function is_time(field)
    return (session[field] or ""):match("^%d+$") and #session[field] <= 17
  end
  if session.user_id and is_time("created_at") and is_time("last_active_at")
    and is_time("expires_at") and redis.call("PTTL", key) >= 0 then
    return session
  end
  redis.call("DEL", key)
  return nil
end

-- Gives the session its whole life again.
local function renew(session, ttl)
  session.last_active_at = now
  session.expires_at = string.format("%.0f", tonumber(now) + ttl * 1000)
  redis.call("HSET", key, "last_active_at", now, "expires_at", session.expires_at)
  redis.call("PEXPIRE", key, ttl)
end

local function answer(session)
  return {
    session.user_id,
    session.dept_id or "",
    session.conversation_id or "",
    session.created_at,
    session.last_active_at,
    session.expires_at,
  }
end
