-- Returns the commands of the scripts that the user may not execute. The arguments are such that no
-- command changes anything: the key does not exist, and commands that would create it are invalid.
local key, denied = KEYS[1], {}

local function check(command, ...)
  local reply = redis.pcall(command, ...)
  local message = type(reply) == "table" and reply.err or ""
  local is_denied = message:find("NOPERM", 1, true) -- since Redis 7
    or message:find("ACL failure", 1, true)
    or message:find("user executing the script", 1, true)
  if is_denied then
    denied[#denied + 1] = command
  end
end

check("DEL", key)
check("HDEL", key, "x")
check("HGET", key, "x")
check("HGETALL", key)
check("HKEYS", key)
check("HMGET", key, "x")
check("HSET", key, "x", "x", "x") -- a field without a value
check("HSTRLEN", key, "x")
check("PEXPIRE", key, "1000")
check("PEXPIREAT", key, "1000")
check("PTTL", key)
check("SET", key, "x", "PX", "x") -- no number
check("SRANDMEMBER", key, "1")
check("SREM", key, "x")
check("TIME")
check("TYPE", key)
check("ZADD", key, "x", "x") -- no number
check("ZCARD", key)
check("ZRANGE", key, "0", "0")
check("ZRANGEBYSCORE", key, "0", "0")
check("ZREM", key, "x")
check("ZREVRANGEBYSCORE", key, "0", "0")
check("ZSCORE", key, "x")
return denied
