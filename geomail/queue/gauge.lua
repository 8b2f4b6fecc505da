-- gauge: how many jobs wait in all, and whether that is too many; the latter is written down for producers.
--
-- KEYS  L arrive jobs delayed dead pressure
-- ARGV  high water: how many are too many; 0: never
-- Returns  {jobs that wait, 'ok' | 'high'}
--
-- What waits: all that is neither in a batch that nobody has touched, nor delayed, nor dead; so what is parked counts.
-- `pressure` is a string, `ok` or `high`: high from the high water on, ok again at nine tenths of it. O(1).
local depth = pressure_depth(KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
if refusal then
  return refusal
end
return {depth, note_pressure(KEYS[6], depth, tonumber(ARGV[1]))}
