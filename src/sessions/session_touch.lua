-- Renews a session, and puts it on a conversation when one is given.
-- ARGV: life in ms, user or "" for any, conversation or "" for the one it is on
-- Returns the session, or nothing when it is not live or not that user's.
local session = read()
if not session or (ARGV[2] ~= "" and session.user_id ~= ARGV[2]) then
  return nil
end
if ARGV[3] ~= "" then
  session.conversation_id = ARGV[3]
  redis.call("HSET", key, "conversation_id", ARGV[3])
end
renew(session, ARGV[1])
return answer(session)
