-- The end of a flight with a result. Returns 1, or 0 where the flight is no longer the caller's.
--
-- KEYS[1]  the hash, see ask.lua
-- ARGV     token, data, milliseconds fresh, milliseconds until gone, nano, credits, linger (milliseconds)

local flight = redis.call('HMGET', KEYS[1], 'token', 'state')
if flight[1] ~= ARGV[1] or flight[2] ~= 'live' then return 0 end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local fresh, stale = tonumber(ARGV[3]), tonumber(ARGV[4])
local function digits(number) return string.format('%.0f', number) end

redis.call('HSET', KEYS[1], 'state', 'done', 'made', ARGV[1], 'data', ARGV[2], 'nano', ARGV[5], 'credits', ARGV[6],
  'born', digits(now), 'fresh', digits(now + fresh), 'stale', digits(now + stale), 'hold', '0')
redis.call('PEXPIRE', KEYS[1], math.max(stale, tonumber(ARGV[7])))
return 1
