-- reap: bring back the jobs of a worker that stopped beating.
--
-- KEYS  open:<victim> workers jobs front suspects dead stats seen:0 seen:1 outcomes:0 outcomes:1 hosts pushed
--       batch:<victim>:<seq>…
-- ARGV  victim or '', force (0|1), seqs, newest first
-- Returns  without a victim: {victim…}, those whose lease is over and those fenced and not yet empty;
--          with a victim and no seqs: {fenced (0|1), seq…}, fencing it when its lease is over or by force;
--          with seqs: {jobs brought back, batches done}; the caller repeats with the seqs that are left.
--
-- A fenced worker has score 0 while it holds anything, then minus the time, as a tombstone for a day: so a
-- reaper that dies half-way is followed by another. Each live slot gets one more death and goes to `front` in
-- the old order (the right end is taken first), at its second death to `suspects`. Only what died while it
-- was taken from there, alone, is dead. What its json then has as `last_words` is pushed, under the id of a follow-up.
-- At most 8 batches and 1 MB a call, one batch at least. O(slots + bytes).
local open, workers, jobs, front, suspects, dead, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
call('HDEL', open, '')
size_of('HLEN', jobs)
size_of('LLEN', front)
size_of('LLEN', suspects)
size_of('LLEN', KEYS[13])
size_of('ZCARD', dead)
size_of('ZCARD', workers)
if refusal then
  return refusal
end
local victim, now = ARGV[1], now_ms()

if victim == '' then
  call('ZREMRANGEBYSCORE', workers, 86400000 - now, '(0')
  return call('ZRANGEBYSCORE', workers, 0, now, 'LIMIT', 0, 100)
end

-- A name that is nowhere has nothing, unless somebody who knows says that it has died.
local function fence()
  local score = call('ZSCORE', workers, victim)
  local lease = score and tonumber(score)
  if lease and lease <= 0 then
    return lease == 0
  end
  if ARGV[2] ~= '1' and not (lease and lease <= now) then
    return false
  end
  call('ZADD', workers, 0, victim)
  redis.pcall('HDEL', KEYS[12], victim)
  return true
end

local function close_if_empty()
  if call('HLEN', open) <= call('HEXISTS', open, 'last') then
    call('DEL', open)
    call('ZADD', workers, -now, victim)
  end
end

if #ARGV == 2 then
  if not fence() then
    return {0}
  end
  local reply = {1}
  for _, field in ipairs(call('HKEYS', open)) do
    if field ~= 'last' then
      reply[#reply + 1] = field
    end
  end
  close_if_empty()
  return reply
end

local score = call('ZSCORE', workers, victim)
if not score or tonumber(score) ~= 0 then
  return {0, #ARGV - 2}
end

local back, bytes_moved = 0, 0
local counted = {}

local function speak(place, json)
  local words = find(json, '"last_words":"', 1, true) and cjson.decode(json).last_words
  if words then
    call('HSET', jobs, place .. '.cb', render(0, now, '{"callback":true}', words))
    call('LPUSH', KEYS[13], '\1' .. place .. '.cb')
  end
end

local function bring_back(id, deaths, first, json, bytes, is_suspect)
  deaths = deaths + 1
  call('HSET', jobs, id, render(deaths, first, json, bytes))
  bytes_moved = bytes_moved + #bytes
  if is_suspect then
    call('ZADD', dead, now, id)
    free_key(jobs, dead, KEYS[8], KEYS[9], id, json)
    note_outcome(KEYS[10], KEYS[11], now, id, 'dead', json)
    counted.dead = (counted.dead or 0) + 1
  elseif deaths >= 2 then
    call('RPUSH', suspects, '\1' .. id)
    counted.suspects = (counted.suspects or 0) + 1
  else
    call('RPUSH', front, '\1' .. id)
  end
  back = back + 1
end

local function reap_batch(key, seq)
  local entry = call('HGET', open, seq)
  if not entry then
    return
  end
  local taken, characters = match(entry, '^(%d+) (.*)$')
  for index = #characters - 1, 0, -1 do
    local character = byte(characters, index + 1)
    if character ~= SETTLED then
      local place = victim .. '.' .. seq .. '.' .. index
      local item, is_suspect = call('LINDEX', key, index), character == SUSPECT
      if item and (byte(item) ~= 1 or character == UNREAD) then
        bring_back(place, 0, taken, '{}', item, is_suspect)
      elseif item then
        local id = sub(item, 2)
        local value = job_value(jobs, id)
        if value then
          local deaths, first, json, bytes = parse(value)
          bring_back(id, tonumber(deaths), first, json, bytes, is_suspect)
          if is_suspect then
            speak(place, json)
          end
        end
      end
    end
  end
  call('HDEL', open, seq)
  call('UNLINK', key)
end

local done = 0
for i = 3, #ARGV do
  if done >= 8 or bytes_moved >= 1000000 then
    break
  end
  reap_batch(KEYS[11 + i], ARGV[i])
  done = done + 1
end
close_if_empty()
counted.reaped = back
for name, number in pairs(counted) do
  redis.pcall('HINCRBY', stats, name, number)
end
return {back, done}
