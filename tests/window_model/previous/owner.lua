-- Prefix of the scripts that a caller can run before the store has confirmed who owns the
-- conversation.
--
-- A caller who names a user is answered only if the window knows this user as the owner. Otherwise
-- the script ends here, for another user's conversation after the same commands as for a missing
-- one, and nothing has changed.
--
-- ARGV: claimed user, "" if the caller names none; 1 if the store has confirmed the claim. The
-- other arguments follow.
local claimed, is_confirmed = table.remove(ARGV, 1), table.remove(ARGV, 1) == "1"
local known = redis.pcall("HMGET", KEYS[1], "user", "owner")
local known_owner = not known.err and (known[1] or known[2])
if claimed ~= "" and not is_confirmed and known_owner ~= claimed then
  return { "owner_unknown", "" } -- guard: only the owner reaches the window
end
