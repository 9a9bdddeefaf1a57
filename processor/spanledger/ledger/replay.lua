-- Correct what a producer that is gone ever spent in a scope. See `replay` in book.py, and sync.lua for the fields.
--
-- KEYS[1]  the scope. ARGV: producer, cum. Returns 1 where the producer is known here as gone.

local name, cum = "p:" .. ARGV[1], tonumber(ARGV[2])
local found = redis.call("HMGET", KEYS[1], name, "r")
if not found[1] then return 0 end
local seq, counted, told, deadline, state = string.match(found[1], "^(%S+) (%S+) %S+ (%S+) %S+ (%S+) (%S+)$")
if state == "0" then return 0 end
local function text(number) return string.format("%.0f", number) end
cum = math.max(cum, tonumber(told))
local total = text(cum)
redis.call("HSET", KEYS[1], "r", text(tonumber(found[2]) + cum - tonumber(counted)), name,
    seq .. " " .. total .. " 0 " .. told .. " " .. total .. " " .. deadline .. " " .. state)
return 1
