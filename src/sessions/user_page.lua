-- Reads a page of the ids of a user's sessions, which include some that have ended.
-- ARGV: last use and id after which the page begins, number of ids
-- Returns pairs of id and last use, latest use first, then greatest id.
local last_use, after, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
remove_expired(128)
local page, offset = {}, 0
-- Sessions with the same last use may precede the page. Their number is bounded by that of all sessions.
repeat
  local read = redis.call("ZREVRANGEBYSCORE", key, ARGV[1], "(" .. format_integer(expired),
    "WITHSCORES", "LIMIT", offset, 128)
  for i = 1, #read, 2 do
    local is_before = tonumber(read[i + 1]) == last_use and read[i] >= after
    if not is_before and #page < 2 * limit then
      page[#page + 1] = read[i]
      page[#page + 1] = read[i + 1]
    end
  end
  offset = offset + 128
until #read < 256 or #page >= 2 * limit
return page
