-- Reads a session. Returns nothing when it is not live.
local session = read()
return session and answer(session)
