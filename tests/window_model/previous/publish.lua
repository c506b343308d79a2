-- Adds committed messages to the window.
-- ARGV: token, TTL in ms, capacity in messages, upper bound in bytes, owner, first
--       and last sequence number, value of tokens, 1 if messages are grouped, then
--       sequence number and JSON of each message within the capacity
local ttl, capacity, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local owner, first, last = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local announced = redis.call("HDEL", key, announcement(ARGV[1])) == 1

-- Removes the oldest messages beyond the capacity. Returns whether the rest is
-- within max_bytes.
local function trim()
  table.sort(seqs)
  local removed = {}
  for i = 1, #seqs - capacity do
    removed[#removed + 1] = "m:" .. format_integer(seqs[i])
  end
  if #removed > 0 then
    redis.call("HDEL", key, "whole", unpack(removed))
  end
  local bytes = 0
  for i = math.max(1, #seqs - capacity + 1), #seqs do
    bytes = bytes + redis.call("HSTRLEN", key, "m:" .. format_integer(seqs[i]))
  end
  return bytes <= max_bytes
end

local function append()
  -- Published messages beyond the capacity are older than the given ones and are
  -- not stored.
  if ARGV[10] and tonumber(ARGV[10]) > first then
    redis.call("HDEL", key, "whole")
  end
  local stored = store("m:", 10, #ARGV)
    and try("HSET", key, "owner", owner, "user", owner, "hi", ARGV[7], "tokens", ARGV[8], "v", "2",
      "epoch", epoch)
  if stored and ARGV[9] == "1" then
    stored = try("HSET", key, "grouped", "1")
  end
  if stored and trim() then
    hi = last
  else
    fields = redis.call("HKEYS", key)
    drop(stored and "too_large" or "out_of_memory")
  end
end

-- Whether the window has the last of the messages. It can have another one under the same number,
-- if the store went back to an earlier state.
local function has_last_message()
  local function id(json)
    return (json or ""):match('"id":"([^"]+)"')
  end
  local known = id(redis.call("HGET", key, "m:" .. ARGV[7]))
  return known ~= nil and known == id(ARGV[#ARGV])
end

local previous_top = top
if not raise_top(last) then
  return reply("out_of_memory")
end
local reason = not announced and "unannounced"
  or is_invalid and "unreadable"
  or is_foreign and "other_epoch"
if reason then
  drop(reason) -- guard: a missing announcement drops the window
elseif not hi then
  -- The first messages of a conversation start a window, unless later ones were
  -- published already.
  local is_beginning = first == 1
  is_beginning = is_beginning and previous_top < 1 -- guard: a cold window starts only below top
  if is_beginning then
    if last <= capacity then
      redis.call("HSET", key, "whole", "1")
    end
    append()
  end
elseif first == hi + 1 then
  append()
elseif last > hi then
  drop("gap") -- guard: a gap drops the window
elseif not has_last_message() then
  drop("diverged") -- guard: other messages under the same numbers drop the window
end
renew(ttl)
return reply(hi and "published" or "cold")
