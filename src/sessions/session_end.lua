-- Ends a session. Returns its user, or nothing when it was not live.
local session = read()
if not session then
  return nil
end
redis.call("DEL", key)
return session.user_id
