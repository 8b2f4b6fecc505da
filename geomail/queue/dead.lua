-- dead: look at dead letters, put them back, drop them; bounded per call, loops are the caller's.
--
-- KEYS  jobs dead delayed front stats
-- ARGV  'list', newest allowed ms, offset, limit       newest first
--       'show', id
--       'retry', then for each job: id, json           deaths start again at 0
--       'drop', id…
-- Returns  list: {looked at, {id, died at, header, bytes}…}; show: {died at, job, root's job or false} or {};
--          retry and drop: {moved, looked at}; retry stops after 1 MB.
-- What names a job that is gone is dropped. An id that is not dead is passed over: may run twice.
-- O(limit * log(dead) + bytes of the jobs).
local jobs, dead, delayed, front, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
call('HDEL', jobs, '')
size_of('ZCARD', dead)
size_of('ZCARD', delayed)
size_of('LLEN', front)
if refusal then
  return refusal
end

local function size_with_root(id, value)
  local root = root_of(id)
  return #value + (root and call('HSTRLEN', jobs, root) or 0)
end

local verbs = {}

function verbs.list()
  local found = call('ZREVRANGEBYSCORE', dead, ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
  local reply = {0}
  for i = 1, #found, 2 do
    local value = job_value(jobs, found[i])
    if value then
      local header = match(value, '^[^\n]*')
      reply[#reply + 1] = {found[i], found[i + 1], header, size_with_root(found[i], value) - #header - 1}
      reply[1] = reply[1] + 1
    else
      call('ZREM', dead, found[i])
    end
  end
  return reply
end

function verbs.show()
  local died, value = call('ZSCORE', dead, ARGV[2]), job_value(jobs, ARGV[2])
  if not (died and value) then
    return {}
  end
  local root = root_of(ARGV[2])
  return {died, value, root and call('HGET', jobs, root)}
end

function verbs.retry()
  local moved, looked, bytes_moved = 0, 0, 0
  for i = 2, #ARGV, 2 do
    if bytes_moved >= 1000000 then
      break
    end
    looked = looked + 1
    local id = ARGV[i]
    local value = call('ZSCORE', dead, id) and job_value(jobs, id)
    if value then
      local _, first, _, bytes = parse(value)
      call('HSET', jobs, id, render(0, first, ARGV[i + 1], bytes))
      call('LPUSH', front, '\1' .. id)
      call('ZREM', dead, id)
      moved, bytes_moved = moved + 1, bytes_moved + #bytes
    end
  end
  redis.pcall('HINCRBY', stats, 'retried by hand', moved)
  return {moved, looked}
end

function verbs.drop()
  local moved = 0
  for i = 2, #ARGV do
    if call('ZREM', dead, ARGV[i]) == 1 and forget(jobs, delayed, dead, ARGV[i]) then
      moved = moved + 1
    end
  end
  redis.pcall('HINCRBY', stats, 'dropped', moved)
  return {moved, #ARGV - 1}
end

return verbs[ARGV[1]]()
