-- Prefix of every script of the recent window.
--
-- The client puts a line before it that defines `server`, the identity of the server and of the
-- history of its data. ARGV[1] is that of the store; the scripts' own arguments follow.
--
-- KEYS[1] is the window, a hash with these fields:
--   owner      owner of the conversation
--   user       owner of the conversation, also of a cold window: the store has confirmed it
--   hi         sequence number of the conversation's last message; a window
--              without this field is cold
--   whole      1 if no messages older than the stored ones exist
--   m:<seq>    message as JSON
--   n:<seq>    pinned message as JSON; n:0 is the summary of a compaction
--   upto       number of the last message that the summary stands for; 0 or missing if
--              there is none. The window has no m:<seq> up to it
--   tokens     tokens of the conversation's messages that no summary stands for
--   v          version of what the window contains. The version before does not write it, and
--              its windows lack parts, pinned messages and summaries
--   grouped    present if the window has tool calls, results or other messages that are
--              not always valid in a history by themselves
--   epoch      histories of Redis and of the store that the window belongs to: after one of them
--              went back to an earlier state, the window may lack or contain other messages
--   top        highest sequence number that was ever published here
--   p:<token> <epoch>  announced write; the value is its deadline in ms
--   lease      "<id>@<epoch> <expiry in ms>": permission to fill the window
local key = KEYS[1]
local epoch = server .. "/" .. table.remove(ARGV, 1)

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Formats an integer. Lua's default format turns large numbers into 1e+15.
local function format_integer(number)
  return string.format("%.0f", number)
end

local function read_number(field)
  return tonumber(redis.call("HGET", key, field) or "")
end

-- Reason why the window was dropped. Empty if it was not dropped.
local drop_reason = ""

-- Return value of every script: its outcome, the reason if it dropped the window,
-- and further values.
local function reply(outcome, ...)
  return { outcome, drop_reason, ... }
end

-- A key of another type was not written by a sidecar. It is deleted, and the
-- window is cold.
local fields = redis.pcall("HKEYS", key)
if fields.err then
  redis.call("DEL", key)
  fields, drop_reason = {}, "unreadable"
end

local tokens, seqs, heads, is_invalid = {}, {}, {}, false
local present = {}
for _, field in ipairs(fields) do
  present[field] = true
  local prefix, rest = field:sub(1, 2), field:sub(3)
  if prefix == "p:" then
    tokens[#tokens + 1] = field
  elseif prefix == "m:" then
    local seq = tonumber(rest)
    if seq then
      seqs[#seqs + 1] = seq
    else
      is_invalid = true
    end
  elseif prefix == "n:" then
    heads[#heads + 1] = field
  end
end
table.sort(seqs)

local head = redis.call("HMGET", key, "hi", "top", "epoch")
local hi = tonumber(head[1] or "")
local top = tonumber(head[2] or "") or 0
local is_foreign = hi and head[3] ~= epoch -- guard: a window belongs to one epoch
if hi then
  is_invalid = is_invalid or not present.owner or not present.v or (#seqs > 0 and seqs[#seqs] > hi)
else
  is_invalid = is_invalid or present.hi or present.owner or #seqs > 0 or #heads > 0
end

-- Returns the field of an announced write. One of another epoch has another name: its window may
-- lack what was published after it was announced.
local function announcement(id)
  return "p:" .. id .. " " .. epoch -- guard: an announcement belongs to one epoch
end

-- Runs a command and returns whether it succeeded. A write fails when Redis is
-- out of memory.
local function try(...)
  local result = redis.pcall(...)
  return not (type(result) == "table" and result.err)
end

-- Records why the window is dropped, if a window exists.
local function record_drop(reason)
  if hi or is_invalid then
    drop_reason = reason
  end
end

-- Drops the window, but keeps the fields that protect writes in progress.
local function drop(reason)
  record_drop(reason)
  local removed = { "owner", "hi", "whole" }
  removed[#removed + 1] = "lease" -- guard: a drop ends the lease
  for _, field in ipairs(fields) do
    if field:sub(1, 2) ~= "p:" and field ~= "top" and field ~= "lease" and field ~= "user" then
      removed[#removed + 1] = field
    end
  end
  redis.call("HDEL", key, unpack(removed))
  hi, seqs, heads, is_invalid, is_foreign = nil, {}, {}, false, false
end

-- Records that the conversation has reached a sequence number. Without this field
-- a later publish could start a window that lacks messages. If it cannot be
-- written, the key is deleted, so that no announced write finds its token.
local function raise_top(seq)
  if seq <= top or try("HSET", key, "top", format_integer(seq)) then
    return true
  end
  record_drop("out_of_memory")
  redis.call("DEL", key)
  return false
end

-- Resets the TTL of the key, so that the key outlives every announced write.
local function renew(ttl)
  local expiry = now + ttl
  for _, token in ipairs(tokens) do
    expiry = math.max(expiry, read_number(token) or 0)
  end
  redis.call("PEXPIREAT", key, format_integer(expiry))
end

-- Stores the messages in ARGV from one index to another, given as pairs of sequence
-- number and JSON, in fields with a prefix. Returns whether that succeeded.
local function store(prefix, from, to)
  local values = {}
  for i = from, to, 2 do
    values[#values + 1] = prefix .. ARGV[i]
    values[#values + 1] = ARGV[i + 1]
    seqs[#seqs + 1] = tonumber(ARGV[i])
  end
  return #values == 0 or try("HSET", key, unpack(values))
end
