-- counts: where all jobs are, at one instant. A script and no MULTI, for a full Redis refuses that.
--
-- KEYS  L arrive pushed front suspects delayed dead stats workers held pressure park:<route>… open:<worker>…
-- ARGV  number of routes
-- Returns  {now, length of each of the first seven, first due or {}, stats, workers with leases, held,
--          pressure, length of each park:<route>…, open:<worker>…}
-- Writes nothing. O(workers + batches in hand + routes).
local reply = {now_ms()}
for i = 1, 5 do
  reply[1 + i] = size_of('LLEN', KEYS[i])
end
for i = 6, 7 do
  reply[1 + i] = size_of('ZCARD', KEYS[i])
end
if refusal then
  return refusal
end
reply[9] = call('ZRANGE', KEYS[6], 0, 0, 'WITHSCORES')
local counters = redis.pcall('HGETALL', KEYS[8]) -- of another type: a worker starts without them
reply[10] = counters.err and {} or counters
reply[11] = call('ZRANGE', KEYS[9], 0, -1, 'WITHSCORES')
reply[12] = call('SMEMBERS', KEYS[10])
local pressure = redis.pcall('GET', KEYS[11])
reply[13] = type(pressure) == 'string' and pressure or 'ok'
for i = 12, #KEYS do
  reply[2 + i] = call(i - 11 <= tonumber(ARGV[1]) and 'LLEN' or 'HGETALL', KEYS[i])
end
return reply
