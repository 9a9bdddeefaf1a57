-- Whether a flight is on its way: 1, or 0. A leader's process renews its lease by the same call.
--
-- KEYS[1]  the hash, see ask.lua
-- ARGV     token, lease in milliseconds (0: a follower, who only looks)

local flight = redis.call('HMGET', KEYS[1], 'token', 'state', 'until')
if flight[1] ~= ARGV[1] or flight[2] ~= 'live' then return 0 end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = tonumber(ARGV[2])
if lease == 0 then return now < tonumber(flight[3]) and 1 or 0 end

redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + lease))
if redis.call('PTTL', KEYS[1]) < lease then redis.call('PEXPIRE', KEYS[1], lease) end
return 1
