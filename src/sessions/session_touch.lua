-- Renews a session.
-- ARGV: TTL in ms
-- Returns the session, or nil if it has ended.
local session = read()
if not session then
  return nil
end
renew(session, ARGV[1])
return reply(session)
