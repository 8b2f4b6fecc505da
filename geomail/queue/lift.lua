-- lift: let a take of large payloads through, which are moved and never read.
--
-- KEYS  open:<worker> batch:<worker>:<seq> L arrive pushed front delayed suspects workers routes stats
-- ARGV  worker, seq, n
-- Returns  what take returns, without slots, whose characters are all `b`; {} when take has to be asked.
--
-- Runs inside MULTI: the batch's key is latched before (a string: no LMOVE gets in), the LMOVEs of L follow. This
-- takes the latch off, as its last act, when the lease is good, the seq is new, and nothing comes before L. Then
-- `open` has a character for each payload that will move: were one of the LMOVEs to fail, a slot is empty, and
-- nothing is lost. For a wrong type take is asked, which names it. O(1).
local open, batch, fresh_list, arrive, pushed, front = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local delayed, suspects, workers, routes, stats = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
call('HDEL', open, '')

local before = 0
for _, key in ipairs({arrive, pushed, front, suspects}) do
  before = before + size_of('LLEN', key)
end
local length, waiting = size_of('LLEN', fresh_list), size_of('ZCARD', delayed)
local parked_routes = size_of('ZCARD', routes)
size_of('ZCARD', workers)
local lease = not refusal and call('ZSCORE', workers, ARGV[1])
if before > 0 or length == 0 or not lease or tonumber(lease) <= 0 then
  return {}
end
if tonumber(ARGV[2]) <= tonumber(call('HGET', open, 'last') or 0) then
  return {}
end
local now = now_ms()
local due = waiting > 0 and call('ZRANGE', delayed, 0, 0, 'WITHSCORES') or {}
if due[2] and tonumber(due[2]) <= now then
  return {}
end

local count = math.min(tonumber(ARGV[3]), length)
local characters = string.rep('b', count)
call('HSET', open, 'last', ARGV[2], ARGV[2], now .. ' ' .. characters)
redis.pcall('HINCRBY', stats, 'taken', count)
note_since(stats, now, length - count)
local ready = parked_routes > 0 and routes_due(routes, now) or {}
call('DEL', batch)
return {'OK', now, tonumber(due[2] or -1), 0, ready, now, characters}
