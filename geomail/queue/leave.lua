-- leave: take an empty worker off the books.
--
-- KEYS  open:<worker> workers hosts
-- ARGV  worker
-- Returns  1 when the worker is gone from the books, 0 when it still holds something (then nothing is changed).
-- What it has told people goes too. A tombstone stays. O(1).
local open, workers = KEYS[1], KEYS[2]
call('HDEL', open, '')
redis.pcall('HDEL', KEYS[3], ARGV[1])
if call('HLEN', open) > call('HEXISTS', open, 'last') then
  return 0
end
local lease = call('ZSCORE', workers, ARGV[1])
if lease and tonumber(lease) > 0 then
  call('ZREM', workers, ARGV[1])
  call('DEL', open)
end
return 1
