-- gauge: how many jobs wait in all, and whether that is too many; the latter is written down for producers.
--
-- KEYS  L arrive jobs delayed dead pressure
-- ARGV  high water: how many are too many; 0: never       '1': try whether jobs could be written
-- Returns  {jobs that wait, 'ok' | 'high', why nothing can be written, or ''}
--
-- What waits: all that is neither in a batch that nobody has touched, nor delayed, nor dead; so what is parked counts.
-- `pressure` is a string, `ok` or `high`: high from the high water on, ok again at nine tenths of it. O(1).
local depth = pressure_depth(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
if refusal then
  return refusal
end
local pressure = note_pressure(KEYS[6], depth, tonumber(ARGV[1]))
local why = ''
if ARGV[2] == '1' and type(redis.pcall('GET', KEYS[6])) ~= 'table' then
  local tried = redis.pcall('SET', KEYS[6], pressure)
  why = tried.err or ''
end
return {depth, pressure, why}
