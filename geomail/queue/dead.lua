-- dead: look at dead letters, put them back, drop them; bounded per call, loops are the caller's.
--
-- KEYS  jobs dead delayed front stats seen:0 seen:1 outcomes:0 outcomes:1
-- ARGV  'list', newest allowed ms, offset, limit       newest first
--       'show', id
--       'retry', then for each job: id, json           deaths start again at 0
--       'drop', id…
--       'expire', age in ms                             drops up to 100 of the oldest
-- Returns  list: {looked at, {id, died at, header, bytes}…}; show: {died at, job, root's job or false} or {};
--          the others: {moved, looked at}. All but show stop after 1 MB: the caller repeats with the rest.
-- What names a job that is gone is dropped. An id that is not dead is passed over: may run twice.
-- O(limit * log(dead) + bytes of the jobs).
local jobs, dead, delayed, front, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if ARGV[1] ~= 'list' and ARGV[1] ~= 'show' then
  call('HDEL', jobs, '') -- who only looks may do so while nothing can be written
end
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

local function header_of(value)
  return match(value, '^[^\n]*')
end

-- Drop one letter; returns whether there was one, and its bytes.
local function drop(id)
  local value = job_value(jobs, id)
  if call('ZREM', dead, id) == 0 or not (value and forget(jobs, delayed, dead, id)) then
    return false, 0
  end
  local json = match(header_of(value), '^%d+ %d+ (.*)$')
  if not root_of(id) then -- of a split job it is given back when the last part dies
    free_key(jobs, dead, KEYS[6], KEYS[7], id, json)
  end
  note_outcome(KEYS[8], KEYS[9], now_ms(), id, 'dropped', json)
  return true, #value
end

local function drop_each(ids, from, name)
  local moved, looked, bytes_dropped = 0, 0, 0
  for i = from, #ids do
    if bytes_dropped >= 1000000 then
      break
    end
    local is_dropped, size = drop(ids[i])
    moved, looked, bytes_dropped = moved + (is_dropped and 1 or 0), looked + 1, bytes_dropped + size
  end
  if moved > 0 then
    redis.pcall('HINCRBY', stats, name, moved)
  end
  return {moved, looked}
end

local verbs = {}

function verbs.list()
  local found = call('ZREVRANGEBYSCORE', dead, ARGV[2], '-inf', 'WITHSCORES', 'LIMIT', ARGV[3], ARGV[4])
  local reply, bytes_read = {0}, 0
  for i = 1, #found, 2 do
    if bytes_read >= 1000000 then
      break
    end
    local value = job_value(jobs, found[i])
    if value then
      local header = header_of(value)
      bytes_read = bytes_read + #value
      reply[#reply + 1] = {found[i], found[i + 1], header, size_with_root(found[i], value) - #header - 1}
      reply[1] = reply[1] + 1
    else
      redis.pcall('ZREM', dead, found[i])
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
  return drop_each(ARGV, 2, 'dropped')
end

function verbs.expire()
  local ids = call('ZRANGEBYSCORE', dead, '-inf', '(' .. now_ms() - ARGV[2], 'LIMIT', 0, 100)
  return drop_each(ids, 1, 'expired')
end

return verbs[ARGV[1]]()
