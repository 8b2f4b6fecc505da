-- outcome: what is known of a job whose id somebody was told.
--
-- KEYS  jobs delayed dead outcomes:0 outcomes:1
-- ARGV  id of the whole job
-- Returns  {lines or '', lines or '', due ms or '', died ms or '', is there (0|1), number of parts or '',
--          what is remembered of it, or '' when it is large}
-- Writes nothing. O(parts + bytes), of at most 1 MB.
local id = ARGV[1]
local is_small = call('HSTRLEN', KEYS[1], id) <= 1000000
local job = is_small and call('HGET', KEYS[1], id) or ''
return {
  call('HGET', KEYS[4], id) or '',
  call('HGET', KEYS[5], id) or '',
  call('ZSCORE', KEYS[2], id) or '',
  call('ZSCORE', KEYS[3], id) or '',
  call('HEXISTS', KEYS[1], id),
  call('HGET', KEYS[1], id .. '/') or '',
  match(job, '^[^\n]*'),
}
