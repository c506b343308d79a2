-- Reads a session. Returns nil if it has ended.
local session = read()
return session and reply(session)
