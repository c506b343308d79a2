-- Fills the window with messages that were read from the store after the lease was
-- granted.
-- ARGV: id of the lease, TTL in ms, owner, sequence number of the conversation's
--       last message, 1 if there are no older messages, value of upto, value of tokens,
--       1 if messages are grouped, number of pinned messages and summary, then sequence
--       number and JSON of these, then of each message
local ttl = tonumber(ARGV[2])
local lease = redis.call("HGET", key, "lease") or ""
local id, expiry = lease:match("^(%S+) (%d+)$")
local allowed = true
allowed = allowed and id == ARGV[1] .. "@" .. epoch and tonumber(expiry) > now -- guard: a fill requires its lease
allowed = allowed and #tokens == 0 -- guard: a fill requires that no write is announced
if not allowed then
  return reply("refused")
end

-- The first command is one that fails when Redis is out of memory: after another one, Redis would
-- accept it.
local old_messages, first_message = seqs, 10 + 2 * tonumber(ARGV[9])
seqs = {}
local values =
  { "owner", ARGV[3], "user", ARGV[3], "hi", ARGV[4], "upto", ARGV[6], "tokens", ARGV[7], "v", "2",
    "epoch", epoch }
local stored = try("HSET", key, unpack(values)) and store("n:", 10, first_message - 1)
local new = {}
for _, seq in ipairs(seqs) do
  new["n:" .. format_integer(seq)] = true
end
seqs = {}
if not stored or not store("m:", first_message, #ARGV) then
  record_drop("out_of_memory")
  redis.call("DEL", key)
  return reply("out_of_memory")
end
for _, seq in ipairs(seqs) do
  new["m:" .. format_integer(seq)] = true
end

local removed = { "lease", "whole", "grouped" }
for _, field in ipairs(heads) do
  if not new[field] then
    removed[#removed + 1] = field
  end
end
for _, seq in ipairs(old_messages) do
  local field = "m:" .. format_integer(seq)
  if not new[field] then
    removed[#removed + 1] = field
  end
end
redis.call("HDEL", key, unpack(removed))
if ARGV[5] == "1" then
  redis.call("HSET", key, "whole", "1")
end
if ARGV[8] == "1" then
  redis.call("HSET", key, "grouped", "1")
end
renew(ttl)
return reply("filled")
