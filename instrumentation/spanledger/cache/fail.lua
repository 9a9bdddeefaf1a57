-- The end of a flight without a result. Returns 1, or 0 where the flight is no longer the caller's.
--
-- KEYS[1]  the hash, see ask.lua
-- ARGV     token, kind ('' lets a follower lead), detail, hold, linger (milliseconds)

local flight = redis.call('HMGET', KEYS[1], 'token', 'state')
if flight[1] ~= ARGV[1] or flight[2] ~= 'live' then return 0 end

if ARGV[2] == '' then
  redis.call('HSET', KEYS[1], 'state', 'free')
else
  redis.call('HSET', KEYS[1], 'state', 'failed', 'kind', ARGV[2], 'detail', ARGV[3])
end
if ARGV[4] ~= '0' then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('HSET', KEYS[1], 'hold', string.format('%.0f', now + tonumber(ARGV[4])))
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
return 1
