-- Starts a session, or renews the one that its user has under this id.
-- ARGV: life in ms, user, department or "", conversation or ""
-- Returns the session, or nothing when it is another user's.
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
return answer(session)
