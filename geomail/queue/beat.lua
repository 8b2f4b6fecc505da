-- beat: renew a worker's lease, or register a new name; and show what Redis believes it holds.
--
-- KEYS  open:<worker> workers held L arrive stats hosts jobs delayed dead pressure
-- ARGV  worker, register (0|1), lease in ms, what people are to see of this worker, or '',
--       how many waiting jobs are too many (0: never; -1: producers are told nothing)
-- Returns  {'FENCED'} · {'OK', now, {what people hold back…}, field, value…} with all fields of open:<worker>.
-- A plain beat of an unknown name is fenced; so is a name with a score <= 0, for ever. A lease that ran out and
-- that nobody fenced may be renewed.
-- Beside that it notes `pressure` for producers, and, for people only: since when the lists have not been empty (`.since`), and two looks at the
-- number of deliveries, half a minute apart (`.looks`), which make the present rate; and, under the worker's name in
-- `hosts`, `<now> <what people are to see>`.
-- O(batches in hand + names held).
local open, workers, held, fresh_list, arrive, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local hosts = KEYS[7]
call('HDEL', open, '')
local lease = call('ZSCORE', workers, ARGV[1])
if lease and tonumber(lease) <= 0 or not lease and ARGV[2] ~= '1' then
  return {'FENCED'}
end
local now = now_ms()
call('ZADD', workers, now + ARGV[3], ARGV[1])

-- A key of a wrong type refuses the takes; it must not cost a lease.
if type(redis.pcall('HLEN', stats)) == 'number' then
  note_since(stats, now, size_of('LLEN', fresh_list) + size_of('LLEN', arrive))
  local delivered = call('HGET', stats, 'delivered') or 0
  local newer, count = match(call('HGET', stats, '.looks') or '', ' (%d+) (%d+)$')
  if not newer then
    newer, count = now, delivered
  end
  if tonumber(newer) + 30000 <= now or newer == now then
    call('HSET', stats, '.looks', newer .. ' ' .. count .. ' ' .. now .. ' ' .. delivered)
  end
end
if ARGV[4] == '' then
  redis.pcall('HDEL', hosts, ARGV[1])
else
  redis.pcall('HSET', hosts, ARGV[1], now .. ' ' .. ARGV[4])
end
if tonumber(ARGV[5]) >= 0 then
  note_pressure(KEYS[11], pressure_depth(fresh_list, arrive, KEYS[8], KEYS[9], KEYS[10]), tonumber(ARGV[5]))
end
local names = redis.pcall('SMEMBERS', held)
local reply = {'OK', now, names.err and {} or names}
for i, field in ipairs(call('HGETALL', open)) do
  reply[3 + i] = field
end
return reply
