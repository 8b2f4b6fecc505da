-- push: put jobs on the queue whose ids are known at once.
--
-- KEYS  jobs pushed outcomes:0 outcomes:1 nudge
-- ARGV  door, seq, json of each, bytes…             job i is `<door>.<seq>.<i>`, counted from 0
-- Returns  1, or 0 when this push was there before.
--
-- (door, seq) is the request's token: a door numbers its pushes upwards and sends one at a time, so what is not above
-- its last number is a repetition. The number lies among the outcomes, a day at least beyond the door's last push.
-- `nudge` gets an element where it has none: it says nothing, and ends the wait of one idle worker.
-- The first write is one that a full Redis refuses: a producer has to be told. O(n + bytes).
local jobs, pushed, outcomes_a, outcomes_b, nudge = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
for _, key in ipairs({jobs, outcomes_a, outcomes_b}) do
  size_of('HLEN', key)
end
size_of('LLEN', pushed)
if refusal then
  return refusal
end
local door, seq = ARGV[1], tonumber(ARGV[2])
local last = call('HGET', outcomes_a, door) or 0
local last_too = call('HGET', outcomes_b, door) or 0
if seq <= math.max(tonumber(last), tonumber(last_too)) then
  return 0
end
local now = now_ms()
for i = 4, #ARGV do
  call('HSET', jobs, door .. '.' .. ARGV[2] .. '.' .. (i - 4), render(0, now, ARGV[3], ARGV[i]))
end
for i = 4, #ARGV do
  call('LPUSH', pushed, '\1' .. door .. '.' .. ARGV[2] .. '.' .. (i - 4))
end
call('HSET', (buckets_of(outcomes_a, outcomes_b, now, 86400000)), door, ARGV[2])
if redis.pcall('LLEN', nudge) == 0 then
  redis.pcall('LPUSH', nudge, '')
end
return 1
