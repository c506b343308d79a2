-- Reads the window for a caller who cannot read it without a script. A caller whose claim is
-- confirmed becomes the owner that the window knows.
-- ARGV from 4: sequence number that the window must contain, id and duration in ms
--       of the lease to grant, TTL in ms
-- Returns "busy", "miss" with the id of the lease if it was granted, or "hit" with all fields.
local min_seq, ttl = tonumber(ARGV[4]), tonumber(ARGV[7])
local now = clock()

local active, expired = 0, {}
for _, field in ipairs(redis.call("HKEYS", key)) do
  if field:sub(1, 2) == "p:" then
    local deadline = tonumber(redis.call("HGET", key, field) or "")
    if deadline and deadline > now then
      active = active + 1
    else
      expired[#expired + 1] = field
    end
  end
end
if active > 0 then
  return reply("busy") -- guard: no read while a write is announced
end
if #expired > 0 then
  redis.call("HDEL", key, unpack(expired))
end

local reason = fault
  or #expired > 0 and "abandoned"
  or hi and hi < min_seq and "stale"
  or hi and is_confirmed and values[5] ~= claimed and "unknown_conversation"
if reason then
  drop(reason)
end

if not hi then
  -- If Redis is out of memory, no lease is granted: the window could not be filled either.
  local lease = redis.call("HGET", key, "lease") or ""
  local expiry = tonumber(lease:match(" (%d+)$") or "")
  local granted = ""
  if not expiry or expiry <= now then
    local value = ARGV[5] .. "@" .. epoch .. " " .. format_integer(now + ARGV[6])
    if try("HSET", key, "lease", value) then
      granted, expiry = ARGV[5], now + ARGV[6]
      if is_confirmed then
        redis.call("HSET", key, "user", claimed)
      end
    end
  end
  -- A key that holds only the lease expires with it: the conversation may
  -- not exist.
  if top > 0 then
    extend(ttl)
  elseif expiry then
    redis.call("PEXPIREAT", key, format_integer(expiry))
  end
  return reply("miss", granted)
end

extend(ttl)
return reply("hit", redis.call("HGETALL", key))
