-- Reads the newest messages, oldest first. A caller whose claim is confirmed becomes the owner that
-- the window knows.
-- ARGV: limit, sequence number that the window must contain, id and duration in ms
--       of the lease to grant, TTL in ms
-- Returns "busy", "short", "miss" with the id of the lease if it was granted, or "hit" with
-- owner, hi, upto, tokens, 1 if there are no older messages than the returned ones, the number
-- of pinned messages and summary, then these, then the messages: all of the window if they are
-- grouped, since the reader then may need more than its limit to find the groups.
local limit, min_seq, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])

local active, expired = {}, {}
for _, token in ipairs(tokens) do
  local deadline = read_number(token)
  local group = deadline and deadline > now and active or expired
  group[#group + 1] = token
end
if #active > 0 then
  return reply("busy") -- guard: no read while a write is announced
end
if #expired > 0 then
  redis.call("HDEL", key, unpack(expired))
  tokens = active
end

local reason = is_invalid and "unreadable"
  or is_foreign and "other_epoch"
  or #expired > 0 and "abandoned"
  or hi and hi < min_seq and "stale"
  or hi and is_confirmed and known[2] ~= claimed and "unknown_conversation"
if reason then
  drop(reason)
end

if not hi then
  -- If Redis is out of memory, no lease is granted: the window could not be filled either.
  local lease = redis.call("HGET", key, "lease") or ""
  local expiry = tonumber(lease:match(" (%d+)$") or "")
  local granted = ""
  if not expiry or expiry <= now then
    local value = ARGV[3] .. "@" .. epoch .. " " .. format_integer(now + ARGV[4])
    if try("HSET", key, "lease", value) then
      granted = ARGV[3]
      if is_confirmed then
        redis.call("HSET", key, "user", claimed)
      end
      -- A key that holds only the lease expires with it: the conversation may
      -- not exist.
      if top == 0 and #tokens == 0 then
        redis.call("PEXPIRE", key, ARGV[4])
      else
        renew(ttl)
      end
    end
  end
  return reply("miss", granted)
end

renew(ttl)
local whole = redis.call("HGET", key, "whole") == "1"
if #seqs < limit and not whole then
  return reply("short")
end
local values = redis.call("HMGET", key, "owner", "upto", "tokens")
local oldest = present.grouped and 1 or math.max(1, #seqs - limit + 1)
local is_complete = whole and oldest == 1
local hit = reply("hit", values[1], format_integer(hi), values[2] or "0", values[3] or "0",
  is_complete and "1" or "0", format_integer(#heads))
for _, field in ipairs(heads) do
  hit[#hit + 1] = redis.call("HGET", key, field)
end
for i = oldest, #seqs do
  hit[#hit + 1] = redis.call("HGET", key, "m:" .. format_integer(seqs[i]))
end
return hit
