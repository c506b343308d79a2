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
--   v          "3 <count> <capacity> <bytes> <whole> <grouped> <heads> <upto> <tokens>":
--     count      messages that were ever stored in this window
--     capacity   number of slots
--     bytes      size of the slots
--     whole      1 if no messages older than the stored ones exist
--     grouped    1 if messages are not valid in a history by themselves, as tool calls and results
--     heads      number of pinned messages and summary
--     upto       number of the last message that the summary stands for; 0 if there is none. The
--                window has no slots of messages up to it
--     tokens     tokens of the conversation's messages that no summary stands for
--   s:<slot>   message: its id in 16 bytes, then a protobuf. The slots are a ring: the message that
--              is stored after <count> others is in the slot <count> modulo <capacity>
--   h:<index>  pinned message, or the summary of a compaction, in the same form
--   epoch      "3:<server>/<store>": histories of Redis and of the store that the window belongs to:
--              after one of them went back to an earlier state, the window may lack or contain other
--              messages. The number is the version of the format. A sidecar of another version
--              finds a window of another epoch, and drops it
--   top        highest sequence number that was ever published here
--   p:<token> <epoch>  announced write; the value is its deadline in ms
--   lease      "<id>@<epoch> <expiry in ms>": permission to fill the window
--
-- The version before uses the same key, and the fields owner, user, hi, epoch, top, p: and lease in
-- the same way. Announcements, leases and drops of both versions are therefore effective in both.
local key = KEYS[1]
local epoch = "3:" .. server .. "/" .. ARGV[1]

-- Reason why the window was dropped. Empty if it was not dropped.
local drop_reason = ""

-- Return value of every script: its outcome, the reason if it dropped the window,
-- and further values.
local function reply(outcome, ...)
  return { outcome, drop_reason, ... }
end

-- Returns the field of an announced write. One of another epoch has another name: its window may
-- lack what was published after it was announced.
local function announcement(id)
  return "p:" .. id .. " " .. epoch -- guard: an announcement belongs to one epoch
end

-- Returns the time in ms.
local function clock()
  local time = redis.call("TIME")
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Formats an integer. Lua's default format turns large numbers into 1e+15.
local function format_integer(number)
  return string.format("%.0f", number)
end

-- Makes the key live for at least `ttl` ms more. It is never shortened, so that the key outlives
-- every announced write.
local function extend(ttl)
  if redis.call("PTTL", key) < ttl then
    redis.call("PEXPIRE", key, format_integer(ttl))
  end
end
