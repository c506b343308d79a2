-- Every script of the recent window begins with this.
--
-- KEYS[1] is the window, a hash:
--   owner      whose conversation it is
--   hi         the conversation's last number; a window without it is cold
--   whole      1 when nothing older exists than what is here
--   m:<seq>    a message, as JSON
--   top        the highest number that was ever published here
--   p:<token>  an announced write, with the time in ms when it is given up
--   lease      "<id> <time in ms when it ends>": who may fill the window
local key = KEYS[1]

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Numbers are never written in Lua's own form, which turns large ones into 1e+15.
local function whole_number(number)
  return string.format("%.0f", number)
end

local function read_number(field)
  return tonumber(redis.call("HGET", key, field) or "")
end

-- Why the window was dropped, if there was one to drop.
local dropped = ""

-- What every script returns: a word for what it did, why it dropped the window
-- if it did, and what else there is to say.
local function answer(word, ...)
  return { word, dropped, ... }
end

-- A key of another type is nothing of ours: it goes, and the window is cold.
local fields = redis.pcall("HKEYS", key)
if fields.err then
  redis.call("DEL", key)
  fields, dropped = {}, "unreadable"
end

local tokens, seqs, broken = {}, {}, false
local present = {}
for _, field in ipairs(fields) do
  present[field] = true
  local kind, rest = field:sub(1, 2), field:sub(3)
  if kind == "p:" then
    tokens[#tokens + 1] = field
  elseif kind == "m:" then
    local seq = tonumber(rest)
    if seq then
      seqs[#seqs + 1] = seq
    else
      broken = true
    end
  end
end
table.sort(seqs)

local hi = read_number("hi")
local top = read_number("top") or 0
if hi then
  broken = broken or not present.owner or (#seqs > 0 and seqs[#seqs] > hi)
else
  broken = broken or present.hi or present.owner or #seqs > 0
end

-- Whether a write succeeds. It does not when Redis is out of memory.
local function try(...)
  local answer = redis.pcall(...)
  return not (type(answer) == "table" and answer.err)
end

-- Notes why the window goes, if there is one.
local function note(reason)
  if hi or broken then
    dropped = reason
  end
end

-- Removes the window, but not what protects the writes that are under way.
local function drop(reason)
  note(reason)
  local doomed = { "owner", "hi", "whole" }
  doomed[#doomed + 1] = "lease" -- guard: a drop ends the lease
  for _, field in ipairs(fields) do
    if field:sub(1, 2) ~= "p:" and field ~= "top" and field ~= "lease" then
      doomed[#doomed + 1] = field
    end
  end
  redis.call("HDEL", key, unpack(doomed))
  hi, seqs, broken = nil, {}, false
end

-- Notes that the conversation has reached a number. Without this note a later
-- publish could start a window that lacks messages, so the key goes altogether
-- when the note can't be made: then no announced write finds its token.
local function raise_top(seq)
  if seq <= top or try("HSET", key, "top", whole_number(seq)) then
    return true
  end
  note("out_of_memory")
  redis.call("DEL", key)
  return false
end

-- Gives the key its whole life again, and never less than an announced write needs.
local function renew(ttl)
  local ends = now + ttl
  for _, token in ipairs(tokens) do
    ends = math.max(ends, read_number(token) or 0)
  end
  redis.call("PEXPIREAT", key, whole_number(ends))
end

-- Writes the messages that ARGV has from an index on, as pairs of number and text.
local function store(index)
  local values = {}
  for i = index, #ARGV, 2 do
    values[#values + 1] = "m:" .. ARGV[i]
    values[#values + 1] = ARGV[i + 1]
    seqs[#seqs + 1] = tonumber(ARGV[i])
  end
  return #values == 0 or try("HSET", key, unpack(values))
end
