-- grant: give a worker the times at which its next mails on a route may go.
--
-- KEYS  {geomail:<route>}:rate:<pace>, then one such key for each quota
-- ARGV  tokens wanted, tokens of earlier grants that were not used, then for each key: so many in so many us
-- Returns  {now, start, n}: n tokens from `start` on, one each per/count us; n is 0 where
--          none may be had within two seconds: then `start` is when to ask again. All times in us of this server.
--
-- The pace is a GCRA without a burst: field `next` holds the time of the next token, so that each token belongs to one
-- worker and no two to one moment. It may lie 30 ms in the past, for a worker that asks late has not
-- lost what it could have had; where it lies further ahead than we grant, the clock was set back: then it is moved.
-- The further ahead others have been served, the fewer are given at once: many workers take turns quickly.
-- A quota counts in sixtieths of its time, field by field; what was granted and not used is taken off the youngest.
-- Without a limit in time none of the keys is of use, so they expire. O(keys * 60).
local LATE_US, AHEAD_US, TURN_US, PARTS = 30000, 2000000, 200000, 60
for i = 1, #KEYS do
  size_of('HLEN', KEYS[i])
end
if refusal then
  return refusal
end
for i = 1, #KEYS do
  call('HDEL', KEYS[i], '')
end
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local wanted, unused = tonumber(ARGV[1]), tonumber(ARGV[2])
local count, per = tonumber(ARGV[3]), tonumber(ARGV[4])
local interval = per / count
local furthest = now + AHEAD_US + TURN_US + interval

local said = tonumber(call('HGET', KEYS[1], 'next') or 0)
if said > furthest then
  said = now + AHEAD_US + interval
  call('HSET', KEYS[1], 'next', string.format('%.0f', said))
end
local start = math.max(now - LATE_US, said)
local ahead = start - now
local n, again = math.min(wanted, math.max(1, math.floor(AHEAD_US / interval))), math.floor(start)
if ahead > AHEAD_US then
  n = 0
elseif ahead > TURN_US then
  n = math.max(1, math.floor(n * TURN_US / ahead))
end

-- Forget what is too old, and what was not used; return how many are left of a quota, and when there will be more.
local function left_of(key, most, width)
  local oldest, newest = math.floor((start - width * PARTS) / width), math.floor(furthest / width)
  local parts, sum, first, last = {}, 0, nil, nil
  local fields = call('HGETALL', key)
  for i = 1, #fields, 2 do
    local part, granted = tonumber(fields[i]), tonumber(fields[i + 1])
    if part < oldest or part > newest then
      call('HDEL', key, fields[i])
    end
    if part > newest then -- the clock was set back
      part = math.floor(now / width)
      call('HINCRBY', key, part, granted)
    end
    if part >= oldest then
      parts[part] = (parts[part] or 0) + granted
      sum = sum + granted
      first, last = math.min(first or part, part), math.max(last or part, part)
    end
  end
  local back = last and math.min(unused, parts[last]) or 0
  if back > 0 then
    call('HINCRBY', key, last, -back)
  end
  return most - sum + back, first and math.ceil((first + 1 + PARTS) * width)
end

for i = 2, #KEYS do
  local left, more = left_of(KEYS[i], tonumber(ARGV[1 + 2 * i]), ARGV[2 + 2 * i] / PARTS)
  if left <= 0 then
    again = math.max(again, more)
  end
  n = math.max(0, math.min(n, left))
end
if n == 0 then
  return {now, again, 0}
end

local stop = math.ceil(start + n * interval)
call('HSET', KEYS[1], 'next', string.format('%.0f', stop))
call('PEXPIRE', KEYS[1], math.ceil((interval + AHEAD_US) / 1000) + 60000)
for i = 2, #KEYS do
  local width = ARGV[2 + 2 * i] / PARTS
  call('HINCRBY', KEYS[i], string.format('%.0f', math.floor(stop / width)), n)
  call('PEXPIRE', KEYS[i], math.ceil(width * (PARTS + 2) / 1000) + 60000)
end
return {now, math.floor(start), n}
