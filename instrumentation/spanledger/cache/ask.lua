-- A caller's question: is there an answer, is somebody fetching it, or is the caller to fetch it?
--
-- KEYS[1]  a hash. The entry: data, nano, credits, made (token of the flight that brought it), born, fresh, stale, hold.
--          The flight: token, until, state (live, done, free, failed), kind, detail.
--          Times are Unix milliseconds, tokens Unix microseconds: they grow even where the hash was evicted meanwhile.
-- ARGV     token of the flight that the caller followed or 0, refresh (1 or 0), largest age or -1, refresh ahead, lease,
--          linger (milliseconds).
-- Returns  verdict, token, and: the entry's data, age, whether fresh, nano, credits; or a failure's kind and detail.

local following, refresh = tonumber(ARGV[1]), ARGV[2] == '1'
local max_age, ahead = tonumber(ARGV[3]), tonumber(ARGV[4])
local lease, linger = tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)

local found = redis.call('HMGET', KEYS[1], 'made', 'born', 'fresh', 'stale', 'hold', 'token', 'until', 'state')
for i = 1, 7 do found[i] = tonumber(found[i]) end
local made, born, fresh, stale, hold, token, till, state = unpack(found, 1, 8)

-- Lua would print large numbers with an exponent.
local function digits(number) return string.format('%.0f', number) end

local age = born and math.max(0, now - born)

local function with_entry(verdict, number, is_fresh)
  local entry = redis.call('HMGET', KEYS[1], 'data', 'nano', 'credits')
  return {verdict, number, entry[1], digits(age), is_fresh and 1 or 0, entry[2], entry[3]}
end

if following > 0 then
  if made and made >= following then return with_entry('hit', digits(made), true) end
  if state == 'failed' and token == following then
    local failure = redis.call('HMGET', KEYS[1], 'kind', 'detail')
    return {'failed', digits(token), failure[1], failure[2]}
  end
end

local live = state == 'live' and now < till
local usable = born and now < stale
local own_fresh = usable and now < fresh

if usable and not refresh then
  local busy = live or (hold and now < hold)
  local served
  if own_fresh and (max_age < 0 or age < max_age) then
    served = busy or now < fresh - ahead
  else
    served = busy and max_age < 0
  end
  if served then return with_entry('hit', digits(made), own_fresh) end
end

if live then return {'follow', digits(token)} end

local mine = digits(math.max(now_us, (token or 0) + 1))
redis.call('HSET', KEYS[1], 'token', mine, 'until', digits(now + lease), 'state', 'live')
local keep = lease + linger
if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
if usable then return with_entry('lead', mine, own_fresh) end
return {'lead', mine}
