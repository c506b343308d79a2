-- Prefix of the scripts that a caller can run before the store has confirmed who owns the
-- conversation.
--
-- A caller who names a user is answered only if the window knows this user as the owner. Otherwise
-- the script ends here, for another user's conversation after the same commands as for a missing
-- one, and nothing has changed.
--
-- ARGV[2]: claimed user, "" if the caller names none; ARGV[3]: 1 if the store has confirmed the
-- claim.
local claimed, is_confirmed = ARGV[2], ARGV[3] == "1"
local known = redis.pcall("HMGET", key, "user", "owner")
local known_owner = not known.err and (known[1] or known[2])
if claimed ~= "" and not is_confirmed and known_owner ~= claimed then
  return reply("owner_unknown") -- guard: only the owner reaches the window
end
