-- Reads the state of the window, for the scripts that change it.

-- A key of another type was not written by a sidecar. It is deleted, and the
-- window is cold.
local values = redis.pcall("HMGET", key, "hi", "top", "epoch", "v", "owner")
if values.err then
  redis.call("DEL", key)
  values, drop_reason = {}, "unreadable"
end
local hi, top = tonumber(values[1] or ""), tonumber(values[2] or "") or 0
local count, capacity, bytes, whole, grouped, rest =
  (values[4] or ""):match("^3 (%d+) (%d+) (%d+) ([01]) ([01]) (%d+ %d+) %-?%d+$")
local exists = values[1] or values[4] or values[5]

-- Reason why the window cannot be used.
local fault
if exists and values[3] ~= epoch then
  fault = "other_epoch" -- guard: a window belongs to one epoch
elseif exists and not (hi and count and values[5]) then
  fault = "unreadable"
end

-- Runs a command and returns whether it succeeded. A write fails when Redis is
-- out of memory.
local function try(...)
  local result = redis.pcall(...)
  return not (type(result) == "table" and result.err)
end

-- Whether a field belongs to the window instead of protecting writes in progress.
local function is_content(field)
  return field:sub(1, 2) ~= "p:" and field ~= "top" and field ~= "lease" and field ~= "user"
end

-- Drops the window, but keeps the fields that protect writes in progress.
local function drop(reason)
  if exists then
    drop_reason = reason
  end
  local removed = { "hi" }
  removed[#removed + 1] = "lease" -- guard: a drop ends the lease
  for _, field in ipairs(redis.call("HKEYS", key)) do
    if is_content(field) then
      removed[#removed + 1] = field
    end
  end
  redis.call("HDEL", key, unpack(removed))
  hi, exists, fault = nil, false, nil
end

-- Deletes the key, because a field that protects writes in progress cannot be written. No announced
-- write finds its token then.
local function delete_full()
  if exists then
    drop_reason = "out_of_memory"
  end
  redis.call("DEL", key)
  return reply("out_of_memory")
end

-- Records that the conversation has reached a sequence number. Without this field
-- a later publish could start a window that lacks messages. Returns whether it was recorded.
local function raise_top(seq)
  return seq <= top or try("HSET", key, "top", format_integer(seq))
end
