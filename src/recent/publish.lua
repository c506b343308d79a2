-- Adds committed messages to the window.
-- ARGV from 2: token, TTL in ms, capacity in messages, upper bound in bytes, owner, first
--       and last sequence number, value of tokens, 1 if messages are grouped, then
--       each message within the capacity
local FIRST_MESSAGE = 11
local first, last = tonumber(ARGV[7]), tonumber(ARGV[8])
local stored = #ARGV - FIRST_MESSAGE + 1
local is_cut = last - first + 1 > stored
local own_capacity = tonumber(ARGV[4])
local announced = redis.call("HDEL", key, announcement(ARGV[2])) == 1

-- Adds the messages to the ring. Returns the reason if the window has no room for them.
local is_appended = false
local function append()
  local is_wrapped = count > capacity
  if is_wrapped and capacity < own_capacity then
    return "outgrown"
  end
  capacity = math.max(capacity, own_capacity)
  -- The ring may not have a gap before the messages.
  if is_cut and stored < capacity and count > 0 then
    return "outgrown"
  end
  local fields = { "hi", ARGV[8], "owner", ARGV[6], "user", ARGV[6], "epoch", epoch }
  for i = 0, stored - 1 do
    local field = "s:" .. format_integer((count + i) % capacity)
    if count + i >= capacity then
      bytes = bytes - redis.call("HSTRLEN", key, field)
    end
    local message = ARGV[FIRST_MESSAGE + i]
    bytes = bytes + #message
    fields[#fields + 1], fields[#fields + 2] = field, message
  end
  count = count + stored
  if bytes > tonumber(ARGV[5]) then
    return "too_large"
  end
  local is_whole = whole == "1" and count <= capacity and not is_cut
  fields[#fields + 1] = "v"
  fields[#fields + 1] = table.concat({
    "3", format_integer(count), format_integer(capacity), format_integer(bytes), is_whole and "1" or "0",
    (grouped == "1" or ARGV[10] == "1") and "1" or "0", rest, ARGV[9],
  }, " ")
  if last > top then
    fields[#fields + 1], fields[#fields + 2] = "top", ARGV[8]
  end
  if not try("HSET", key, unpack(fields)) then
    return "out_of_memory"
  end
  hi, is_appended = last, true
end

-- Whether the window has the last of the messages. It can have another one under the same number,
-- if the store went back to an earlier state.
local function has_last_message()
  local position = count - 1 - (hi - last)
  local known = redis.call("HGET", key, "s:" .. format_integer(position % capacity))
  return known and known:sub(1, 16) == ARGV[#ARGV]:sub(1, 16)
end

local reason = fault
if not announced then
  reason = "unannounced" -- guard: a missing announcement drops the window
end
if not reason then
  local is_cold = not hi
  count, capacity, bytes = tonumber(count or 0), tonumber(capacity or own_capacity), tonumber(bytes or 0)
  if is_cold then
    -- The first messages of a conversation start a window, unless later ones were
    -- published already.
    whole, rest = "1", "0 0"
    local is_beginning = first == 1
    is_beginning = is_beginning and top < 1 -- guard: a cold window starts only below top
    reason = is_beginning and append()
  elseif values[5] ~= ARGV[6] then
    reason = "unknown_conversation"
  elseif first == hi + 1 then
    reason = append()
  elseif last > hi then
    reason = "gap" -- guard: a gap drops the window
  elseif not has_last_message() then
    reason = "diverged" -- guard: other messages under the same numbers drop the window
  end
end
if not is_appended and not raise_top(last) then
  return delete_full()
end
if reason then
  drop(reason)
end
extend(tonumber(ARGV[3]))
return reply(hi and "published" or "cold")
