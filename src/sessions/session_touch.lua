-- Renews a session.
-- ARGV: life in ms, user or "" for any
-- Returns the session, or nothing when it is not live or not that user's.
local session = read()
if not session or (ARGV[2] ~= "" and session.user_id ~= ARGV[2]) then
  return nil
end
renew(session, ARGV[1])
return answer(session)
