-- What all producers together spent and hold in a scope. See `totals` in book.py, and sync.lua for the fields.
--
-- KEYS[1]  the scope. ARGV: lease_ms, now_ms (0: by this server's clock). Returns spent, held, recovering.

local values = redis.call("HMGET", KEYS[1], "o", "r", "l", "h", "z", "b")
if not values[1] then return {0, 0, 0} end
for i = 1, #values do values[i] = tonumber(values[i]) end
local old, retired, live, held, lost, born = unpack(values)
local lease_ms, now = tonumber(ARGV[1]), tonumber(ARGV[2])
if now == 0 then
    local time = redis.call("TIME")
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local recovering = lost == 1 and now - born >= 0 and now - born < lease_ms
return {old + retired + live, held, recovering and 1 or 0}
