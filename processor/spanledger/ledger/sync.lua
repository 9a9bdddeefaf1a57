-- The store's side of the leases, for one scope: book.py says the same in Python, with the reasons.
--
-- KEYS[1]  the scope: one hash. Fields: the head's numbers by one letter, and p:<producer> = "seq cum inflight cap base
--          deadline state".
-- ARGV     producer, seq, cum, inflight, keep, least, need, want, limit, base, retired, generation, final,
--          expires_s, lease_ms, now_ms (0: by this server's clock)
--
-- Amounts are integers below 2^53, which a Lua number holds exactly; %.0f prints them exactly.

local LIVE, LEFT, REAPED = 0, 1, 2
local KEEP_LEFT_MS, SHORT_MS, SCAN_MS = 900000, 1000, 1000
local NAMES = {"g", "b", "o", "r", "l", "c", "h", "n", "s", "k", "q", "x", "z"}
local GEN, BORN, OLD, RETIRED, LIVES, CAPS, HELD, PRODUCERS, SEEN, CLOCK, SHORT, SCAN, LOST =
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13

local scope, producer = KEYS[1], ARGV[1]
local function arg(i) return tonumber(ARGV[i]) end
local seq, cum, inflight, keep = arg(2), arg(3), arg(4), arg(5)
local least, need, want, limit = arg(6), arg(7), arg(8), arg(9)
local told_base, told_retired, told_generation = arg(10), arg(11), arg(12)
local final, expires_s, lease_ms, now = ARGV[13] == "1", arg(14), arg(15), arg(16)
if now == 0 then
    local time = redis.call("TIME")
    now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number) return string.format("%.0f", number) end

local function parsed(value)
    if not value then return nil end
    local numbers = {}
    for word in string.gmatch(value, "%S+") do numbers[#numbers + 1] = tonumber(word) end
    local s, c, i, cap, base, deadline, state = unpack(numbers)
    return {seq = s, cum = c, inflight = i, cap = cap, base = base, deadline = deadline, state = state}
end

local writes, drops = {}, {}
local function put(name, value)
    writes[#writes + 1] = name
    writes[#writes + 1] = value
end
local function put_record(name, s, c, i, cap, base, deadline, state)
    put(name, text(s) .. " " .. text(c) .. " " .. text(i) .. " " .. text(cap) .. " " .. text(base) .. " "
        .. text(deadline) .. " " .. text(state))
end

local wanted = {unpack(NAMES)}
wanted[#wanted + 1] = "p:" .. producer
local values = redis.call("HMGET", scope, unpack(wanted))
local mine = values[#wanted]
local head, created = {}, not values[GEN]
if created then
    for i = 1, #NAMES do head[i] = 0 end
    head[GEN] = math.max(now, told_generation + 1)
    head[BORN] = now
    head[SEEN] = now
    head[CLOCK] = now
    head[SCAN] = now + SCAN_MS
else
    for i = 1, #NAMES do head[i] = tonumber(values[i]) end
end
local silence = now - head[SEEN]
if 0 < silence and silence <= math.floor(lease_ms / 2) then head[CLOCK] = head[CLOCK] + silence end
head[SEEN] = now
if told_generation ~= 0 and told_generation ~= head[GEN] then
    head[LOST] = 1
    head[OLD] = math.max(head[OLD], told_retired)
end

local function uncount(record)
    head[LIVES] = head[LIVES] - (record.cum - record.base)
    head[CAPS] = head[CAPS] - (record.cap - record.base)
    head[HELD] = head[HELD] - record.inflight
    head[PRODUCERS] = head[PRODUCERS] - 1
end

if now >= head[SCAN] then
    local following = now + KEEP_LEFT_MS
    local all = redis.call("HGETALL", scope)
    for i = 1, #all, 2 do
        local name = all[i]
        if string.sub(name, 1, 2) == "p:" then
            local record = parsed(all[i + 1])
            if record.state ~= REAPED then
                local left_ms = record.deadline - (record.state == LIVE and head[CLOCK] or now)
                if left_ms > 0 then
                    following = math.min(following, now + left_ms)
                elseif record.state == LEFT then
                    -- What is dropped and put again is only put: all puts come before all drops.
                    if name == "p:" .. producer then mine = false else drops[#drops + 1] = name end
                else
                    uncount(record)
                    local total = record.cum + record.inflight
                    head[RETIRED] = head[RETIRED] + total - record.base
                    put_record(name, record.seq, total, 0, record.cum, total, now, REAPED)
                    if name == "p:" .. producer then mine = writes[#writes] end
                end
            end
        end
    end
    head[SCAN] = math.max(following, now + SCAN_MS)
end

local recovering = head[LOST] == 1 and now - head[BORN] >= 0 and now - head[BORN] < lease_ms

local function extra(base)
    if recovering then return 0 end
    local room = limit - head[OLD] - head[RETIRED] - head[CAPS] - (keep - base)
    if room < need and head[CAPS] - head[LIVES] - head[HELD] > 0 then head[SHORT] = now + SHORT_MS end
    if room <= 0 or room < least then return 0 end
    local share = 0
    if now >= head[SHORT] then share = math.floor(room / (2 * (head[PRODUCERS] + 1))) end
    return math.min(room, math.max(need, math.min(want, share)))
end

local record = parsed(mine)
local base, cap, stale = told_base, 0, 0
if record and seq <= record.seq then
    base, cap, stale = record.base, record.cap, 1
else
    if record and record.state == LIVE then
        base = record.base
        uncount(record)
    elseif record then
        base = record.cum
    end
    if final then
        local total = cum + inflight
        head[RETIRED] = head[RETIRED] + total - base
        head[SCAN] = math.min(head[SCAN], now + KEEP_LEFT_MS)
        put_record("p:" .. producer, seq, total, 0, total, total, now + KEEP_LEFT_MS, LEFT)
        base, cap = total, total
    else
        head[PRODUCERS] = head[PRODUCERS] + 1
        cap = keep + extra(base)
        head[LIVES] = head[LIVES] + cum - base
        head[CAPS] = head[CAPS] + cap - base
        head[HELD] = head[HELD] + inflight
        head[SCAN] = math.min(head[SCAN], now + math.max(lease_ms, SCAN_MS))
        put_record("p:" .. producer, seq, cum, inflight, cap, base, head[CLOCK] + lease_ms, LIVE)
    end
end

for i = 1, #NAMES do
    local value = text(head[i])
    if value ~= values[i] then put(NAMES[i], value) end
end
-- All is reckoned: from here on only writes, so that a refused first one (read-only, out of memory) changes nothing.
for i = 1, #writes, 100 do redis.call("HSET", scope, unpack(writes, i, math.min(i + 99, #writes))) end
for i = 1, #drops, 100 do redis.call("HDEL", scope, unpack(drops, i, math.min(i + 99, #drops))) end
if created then redis.call("PEXPIREAT", scope, text(math.max(expires_s * 1000, now + 86400000))) end

local retired = head[OLD] + head[RETIRED]
local short = now < head[SHORT] and 1 or 0
return {
    head[GEN], base, cap, retired + head[LIVES], head[HELD], retired, head[PRODUCERS], recovering and 1 or 0, short, stale
}
