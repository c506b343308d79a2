-- Reads the newest messages, oldest first.
-- ARGV: how many, the number that must be shown, an id and a duration in ms for
--       a lease, life in ms
-- Says "busy", "short", "hit" with owner, hi and the messages, or "miss" with the
-- lease's id when it was given.
local count, must_show, ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])

local live, expired = {}, {}
for _, token in ipairs(tokens) do
  local deadline = read_number(token)
  local kind = deadline and deadline > now and live or expired
  kind[#kind + 1] = token
end
if #live > 0 then
  return answer("busy") -- guard: nothing is read while a write is announced
end
if #expired > 0 then
  redis.call("HDEL", key, unpack(expired))
  tokens = live
end

local unfit = broken and "unreadable"
  or #expired > 0 and "abandoned"
  or hi and hi < must_show and "stale"
if unfit then
  drop(unfit)
end

if not hi then
  -- Out of memory there is no lease; nobody could fill the window anyway.
  local lease = redis.call("HGET", key, "lease") or ""
  local ends = tonumber(lease:match(" (%d+)$") or "")
  local given = ""
  if not ends or ends <= now then
    local value = ARGV[3] .. " " .. whole_number(now + ARGV[4])
    if try("HSET", key, "lease", value) then
      given = ARGV[3]
      -- Where there is nothing else, nothing stays: the conversation may not exist.
      if top == 0 and #tokens == 0 then
        redis.call("PEXPIRE", key, ARGV[4])
      else
        renew(ttl)
      end
    end
  end
  return answer("miss", given)
end

renew(ttl)
local whole = redis.call("HGET", key, "whole") == "1"
if #seqs < count and not whole then
  return answer("short")
end
local hit = answer("hit", redis.call("HGET", key, "owner"), whole_number(hi))
for i = math.max(1, #seqs - count + 1), #seqs do
  hit[#hit + 1] = redis.call("HGET", key, "m:" .. whole_number(seqs[i]))
end
return hit
