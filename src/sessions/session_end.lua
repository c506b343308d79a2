-- Ends a session. Returns its user, or nil if it had ended already.
local session = read()
if not session then
  return nil
end
redis.call("DEL", key)
return session.user_id
