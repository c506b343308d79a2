-- Fills the window with what the store had after the lease was given.
-- ARGV: lease's id, life in ms, owner, the conversation's last number, 1 if
--       there are no older messages, then number and text of each message
local ttl = tonumber(ARGV[2])
local lease = redis.call("HGET", key, "lease") or ""
local id, ends = lease:match("^(%S+) (%d+)$")
local allowed = true
allowed = allowed and id == ARGV[1] and tonumber(ends) > now -- guard: a fill needs its lease
allowed = allowed and #tokens == 0 -- guard: a fill needs that no write is announced
if not allowed then
  return answer("refused")
end

local old = seqs
seqs = {}
if not try("HSET", key, "owner", ARGV[3], "hi", ARGV[4]) or not store(6) then
  note("out_of_memory")
  redis.call("DEL", key)
  return answer("out_of_memory")
end
local kept = {}
for _, seq in ipairs(seqs) do
  kept[seq] = true
end
for _, seq in ipairs(old) do
  if not kept[seq] then
    redis.call("HDEL", key, "m:" .. whole_number(seq))
  end
end
redis.call("HDEL", key, "lease", "whole")
if ARGV[5] == "1" then
  redis.call("HSET", key, "whole", "1")
end
renew(ttl)
return answer("filled")
