-- Fills the window with messages that were read from the store after the lease was
-- granted.
-- ARGV: id of the lease, TTL in ms, owner, sequence number of the conversation's
--       last message, 1 if there are no older messages, then sequence number and
--       JSON of each message
local ttl = tonumber(ARGV[2])
local lease = redis.call("HGET", key, "lease") or ""
local id, expiry = lease:match("^(%S+) (%d+)$")
local allowed = true
allowed = allowed and id == ARGV[1] and tonumber(expiry) > now -- guard: a fill requires its lease
allowed = allowed and #tokens == 0 -- guard: a fill requires that no write is announced
if not allowed then
  return reply("refused")
end

local old = seqs
seqs = {}
if not try("HSET", key, "owner", ARGV[3], "hi", ARGV[4]) or not store(6) then
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
redis.call("HDEL", key, "lease", "whole")
if ARGV[5] == "1" then
  redis.call("HSET", key, "whole", "1")
end
renew(ttl)
return reply("filled")
