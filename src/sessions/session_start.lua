-- Starts a session, or renews the user's live session with this id.
-- ARGV: TTL in ms, user, department or "", conversation or ""
-- Returns the session, or nil if the id belongs to another user's session.
local session = read()
if session and session.user_id ~= ARGV[2] then
  return nil
end
if not session then
  session = { user_id = ARGV[2], created_at = now }
  redis.call("HSET", key, "user_id", ARGV[2], "created_at", now)
  if ARGV[3] ~= "" then
    session.dept_id = ARGV[3]
    redis.call("HSET", key, "dept_id", ARGV[3])
  end
end
if ARGV[4] ~= "" then
  session.conversation_id = ARGV[4]
  redis.call("HSET", key, "conversation_id", ARGV[4])
end
renew(session, ARGV[1])
return reply(session)
