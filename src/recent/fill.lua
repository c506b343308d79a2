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
allowed = allowed and id == ARGV[1] and tonumber(expiry) > now -- guard: a fill requires its lease
allowed = allowed and #tokens == 0 -- guard: a fill requires that no write is announced
if not allowed then
  return reply("refused")
end

local removed = { "lease", "whole", "grouped" }
for _, field in ipairs(heads) do
  removed[#removed + 1] = field
end
redis.call("HDEL", key, unpack(removed))
local old = seqs
seqs = {}
local first_message = 10 + 2 * tonumber(ARGV[9])
local stored_head = store("n:", 10, first_message - 1)
seqs = {}
if not stored_head
  or not try("HSET", key, "owner", ARGV[3], "hi", ARGV[4], "upto", ARGV[6], "tokens", ARGV[7])
  or not store("m:", first_message, #ARGV) then
  record_drop("out_of_memory")
  redis.call("DEL", key)
  return reply("out_of_memory")
end
local stored = {}
for _, seq in ipairs(seqs) do
  stored[seq] = true
end
for _, seq in ipairs(old) do
  if not stored[seq] then
    redis.call("HDEL", key, "m:" .. format_integer(seq))
  end
end
if ARGV[5] == "1" then
  redis.call("HSET", key, "whole", "1")
end
if ARGV[8] == "1" then
  redis.call("HSET", key, "grouped", "1")
end
renew(ttl)
return reply("filled")
