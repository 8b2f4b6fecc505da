-- beat: renew a worker's lease, or register a new name; and show what Redis believes it holds.
--
-- KEYS  open:<worker> workers
-- ARGV  worker, register (0|1), lease in ms
-- Returns  {'FENCED'} · {'OK', now, field, value…} with all fields of open:<worker>.
-- A plain beat of an unknown name is fenced; so is a name with a score <= 0, for ever. A lease that ran out and
-- that nobody fenced may be renewed.
-- O(batches in hand).
local open, workers = KEYS[1], KEYS[2]
call('HDEL', open, '')
local lease = call('ZSCORE', workers, ARGV[1])
if lease and tonumber(lease) <= 0 or not lease and ARGV[2] ~= '1' then
  return {'FENCED'}
end
local now = now_ms()
call('ZADD', workers, now + ARGV[3], ARGV[1])
local reply = {'OK', now}
for i, field in ipairs(call('HGETALL', open)) do
  reply[2 + i] = field
end
return reply
