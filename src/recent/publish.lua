-- Shows messages that were committed.
-- ARGV: token, life in ms, capacity, most bytes, owner, first and last number,
--       then number and text of each message that fits
local ttl, capacity, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local owner, first, last = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local announced = redis.call("HDEL", key, "p:" .. ARGV[1]) == 1

local function trim()
  table.sort(seqs)
  local doomed = { }
  for i = 1, #seqs - capacity do
    doomed[#doomed + 1] = "m:" .. whole_number(seqs[i])
  end
  if #doomed > 0 then
    redis.call("HDEL", key, "whole", unpack(doomed))
  end
  local bytes = 0
  for i = math.max(1, #seqs - capacity + 1), #seqs do
    bytes = bytes + redis.call("HSTRLEN", key, "m:" .. whole_number(seqs[i]))
  end
  return bytes <= budget
end

local function show()
  -- What did not fit is older than what came, and is not here.
  if ARGV[8] and tonumber(ARGV[8]) > first then
    redis.call("HDEL", key, "whole")
  end
  local stored = store(8) and try("HSET", key, "owner", owner, "hi", ARGV[7])
  if stored and trim() then
    hi = last
  else
    fields = redis.call("HKEYS", key)
    drop(stored and "too_large" or "out_of_memory")
  end
end

local reached = top
if not raise_top(last) then
  return answer("out of memory")
end
local unfit = not announced and "unannounced" or broken and "unreadable"
if unfit then
  drop(unfit) -- guard: an announcement that is gone drops the window
elseif not hi then
  -- The conversation's beginning starts a window, unless it has gone on since.
  local is_beginning = first == 1
  is_beginning = is_beginning and reached < 1 -- guard: a cold window starts only below top
  if is_beginning then
    if last <= capacity then
      redis.call("HSET", key, "whole", "1")
    end
    show()
  end
elseif first == hi + 1 then
  show()
elseif last > hi then
  drop("gap") -- guard: a gap drops the window
end
renew(ttl)
return answer(hi and "shown" or "cold")
