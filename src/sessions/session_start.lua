-- Starts a session, or renews the user's live session.
-- ARGV: TTL in ms, department or "", conversation or ""
-- Returns the session, or nil if the key has another user's session.
local session = read()
if is_foreign then
  return nil
end
if not session then
  -- A hash without user_id is invalid, too.
  redis.call("DEL", key)
  session = { user_id = claimed, created_at = now }
  redis.call("HSET", key, "user_id", claimed, "created_at", now)
  if ARGV[2] ~= "" then
    session.dept_id = ARGV[2]
    redis.call("HSET", key, "dept_id", ARGV[2])
  end
end
if ARGV[3] ~= "" then
  session.conversation_id = ARGV[3]
  redis.call("HSET", key, "conversation_id", ARGV[3])
end
renew(session, ARGV[1])
return reply(session)
