-- Fills the window with messages that were read from the store after the lease was
-- granted.
-- ARGV from 2: id of the lease, TTL in ms, owner, sequence number of the conversation's
--       last message, value of v, number of pinned messages and summary, then these, then
--       each message
local FIRST_HEAD = 8
local first_message = FIRST_HEAD + tonumber(ARGV[7])
local lease = redis.call("HGET", key, "lease") or ""
local id, expiry = lease:match("^(%S+) (%d+)$")
local old, is_announced = redis.call("HKEYS", key), false
for _, field in ipairs(old) do
  is_announced = is_announced or field:sub(1, 2) == "p:"
end
local allowed = true
allowed = allowed and id == ARGV[2] .. "@" .. epoch and tonumber(expiry) > clock() -- guard: a fill requires its lease
allowed = allowed and not is_announced -- guard: a fill requires that no write is announced
if not allowed then
  return reply("refused")
end

-- The first command is one that fails when Redis is out of memory: after another one, Redis would
-- accept it.
local fields =
  { "owner", ARGV[4], "user", ARGV[4], "hi", ARGV[5], "v", ARGV[6], "epoch", epoch }
for i = FIRST_HEAD, #ARGV do
  local is_head = i < first_message
  local name = is_head and "h:" .. format_integer(i - FIRST_HEAD) or "s:" .. format_integer(i - first_message)
  fields[#fields + 1], fields[#fields + 2] = name, ARGV[i]
end
if not try("HSET", key, unpack(fields)) then
  return delete_full()
end

local new, removed = {}, { "lease" }
for i = 1, #fields, 2 do
  new[fields[i]] = true
end
for _, field in ipairs(old) do
  if is_content(field) and not new[field] then
    removed[#removed + 1] = field
  end
end
redis.call("HDEL", key, unpack(removed))
extend(tonumber(ARGV[3]))
return reply("filled")
