-- Renews a session.
-- ARGV: TTL in ms, user or "" for any user
-- Returns the session, or nil if it has ended or belongs to another user.
local session = read()
if not session or (ARGV[2] ~= "" and session.user_id ~= ARGV[2]) then
  return nil
end
renew(session, ARGV[1])
return reply(session)
