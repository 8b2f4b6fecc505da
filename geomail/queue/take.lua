-- take: give a worker its next batch. The batch's name (worker, seq) is the request's token.
--
-- KEYS  open:<worker> batch:<worker>:<seq> jobs L arrive pushed front delayed suspects workers routes stats nudge
--       [park:<route>]
-- ARGV  worker, seq, n, max bytes, suspects allowed (0|1), route or '', ms until the route may be tried again
-- Returns  {'FENCED'} · {'USED', last} · {'OK', now, next due or -1, suspects waiting, {up to 16 routes due},
--          time of the take, characters, slot…}; a slot is a producer's bytes, or {id, job, root's job or false}.
-- For seq <= last nothing is taken: an open batch is returned again, for a closed one USED. With n < 0 nothing is
-- taken for any seq, and a new one is used up: what was sent under its name before can't come late.
-- An empty result writes no seq. Order: a share of what is due, front, arrive, pushed and L by turns, the rest
-- of what is due. A suspect travels alone, and only to a worker that holds nothing.
-- What it leaves in `pushed` is the next idle worker's, if there is one: a push has woken one of them only.
-- O(n + bytes); at most n + 1000 references are looked at, lists are read from the tail in doubling chunks.
local open, batch, jobs, fresh_list, arrive, pushed, front = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local delayed, suspects, workers, routes, stats, nudge = KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local park = KEYS[14]
call('HDEL', open, '')
local worker, seq, n, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local length = {}
for _, key in ipairs(park and {suspects, park} or {fresh_list, arrive, pushed, front, suspects}) do
  length[key] = size_of('LLEN', key)
end
local waiting = size_of('ZCARD', delayed)
local parked_routes = size_of('ZCARD', routes)
size_of('HLEN', jobs)
size_of('ZCARD', workers)
if refusal then
  return refusal
end

local lease = call('ZSCORE', workers, worker)
if not lease or tonumber(lease) <= 0 then
  return {'FENCED'}
end

local now = now_ms()

-- Job `id` with what its bytes need, or nil when nothing is left of it.
local function job_of(id)
  local value = call('HGET', jobs, id)
  local root = value and root_of(id)
  if not root then
    return value and {id, value, false}
  end
  local root_value = call('HGET', jobs, root)
  return root_value and {id, value, root_value}
end

local function weight_of(id)
  local weight, root = call('HSTRLEN', jobs, id), root_of(id)
  if weight == 0 or not root then
    return weight
  end
  local root_weight = call('HSTRLEN', jobs, root)
  return root_weight > 0 and weight + root_weight or 0
end

-- How many have left each source.
local used = {}

local function answer(taken, characters, slots)
  local due = waiting > 0 and call('ZRANGE', delayed, 0, 0, 'WITHSCORES') or {}
  local ready = parked_routes > 0 and routes_due(routes, now) or {}
  local waits = length[suspects] - (used[suspects] or 0)
  local reply = {'OK', now, tonumber(due[2] or -1), waits, ready, taken, characters}
  for i = 1, #slots do
    reply[7 + i] = slots[i]
  end
  return reply
end

local last = tonumber(call('HGET', open, 'last') or 0)
if seq <= last then
  local entry = call('HGET', open, ARGV[2])
  if not entry then
    return {'USED', last}
  end
  local taken, characters = match(entry, '^(%d+) (.*)$')
  local slots = call('LRANGE', batch, 0, -1)
  for i, item in ipairs(slots) do
    if byte(item) == 1 and byte(characters, i) ~= UNREAD then
      slots[i] = job_of(sub(item, 2)) or ''
    end
  end
  return answer(tonumber(taken), characters, slots)
end

if n < 0 then
  call('HSET', open, 'last', ARGV[2])
  return {'USED', seq}
end

-- What the batch will hold, what the caller gets, what leaves its source once the batch is written.
local items, slots, strange, bytes, full = {}, {}, {}, 0, false
local promoted = {}

local function fits(weight)
  if #items > 0 and bytes + weight > max_bytes then
    full = true
    return false
  end
  bytes = bytes + weight
  full = bytes >= max_bytes or #items + 1 >= n
  return true
end

local function add_bytes(payload)
  local at = #items + 1
  if payload ~= '' and byte(payload) ~= 1 then
    items[at], slots[at] = payload, payload
    return
  end
  local id = worker .. '.' .. ARGV[2] .. '.' .. (at - 1)
  local value = render(0, now, '{}', payload)
  strange[#strange + 1], strange[#strange + 2] = id, value
  items[at], slots[at] = '\1' .. id, {id, value, false}
end

-- Add the job that a reference names; false when the batch has no room for it.
local function add_job(id)
  local weight = weight_of(id)
  if weight == 0 then
    call('HDEL', jobs, id)
    return true
  end
  if not fits(weight) then
    return false
  end
  items[#items + 1] = '\1' .. id
  slots[#slots + 1] = job_of(id)
  return true
end

-- Elements number from+1…to, counted from the right end, nearest to it first. Before 7.0 LRANGE walks to the right
-- end from the left one, LINDEX with a negative index does not: 1 µs instead of 1,000 with a million waiting.
local lrange_is_lazy = redis.REDIS_VERSION_NUM ~= nil
local function tail_of(key, from, to)
  local tail = {}
  if lrange_is_lazy or length[key] < 1000 then
    local found = call('LRANGE', key, -to, -(from + 1))
    for i = #found, 1, -1 do
      tail[#tail + 1] = found[i]
    end
  else
    for i = from + 1, to do
      tail[#tail + 1] = call('LINDEX', key, -i) or nil
    end
  end
  return tail
end

local function take_bytes(key, want)
  local got, chunk = used[key] or 0, 1
  local stop = math.min(length[key], got + want)
  while got < stop and not full do
    for _, payload in ipairs(tail_of(key, got, math.min(got + chunk, stop))) do
      if full or not fits(#payload) then
        break
      end
      add_bytes(payload)
      got = got + 1
    end
    local mean = bytes / #items
    chunk = math.min(2 * chunk, math.floor((max_bytes - bytes) / (mean + 1)) + 1)
  end
  used[key] = got
end

local function take_jobs(key, want)
  local got, goal, looked = used[key] or 0, math.min(n, #items + want), 0
  while got < length[key] and #items < goal and not full and looked < n + 1000 do
    for _, reference in ipairs(tail_of(key, got, math.min(got + goal - #items, length[key]))) do
      if full or not add_job(sub(reference, 2)) then
        break
      end
      got, looked = got + 1, looked + 1
    end
  end
  used[key] = got
end

local function take_due(want)
  local goal, looked = math.min(n, #items + want), 0
  while #promoted < waiting and #items < goal and not full and looked < n + 1000 do
    local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', #promoted, goal - #items)
    if #due == 0 then
      break
    end
    for _, id in ipairs(due) do
      if full or not add_job(id) then
        break
      end
      promoted[#promoted + 1], looked = id, looked + 1
    end
  end
end

local is_suspect = false
if park then
  take_jobs(park, n)
else
  if ARGV[5] == '1' and length[suspects] > 0 and call('HLEN', open) == call('HEXISTS', open, 'last') then
    take_jobs(suspects, 1)
    is_suspect = #items > 0
  end
  if not is_suspect then
    local turn = seq % 2
    take_due(n > 1 and math.ceil(n / 4) or turn)
    take_jobs(front, n - #items)
    take_bytes(arrive, n - #items)
    take_jobs(pushed, math.floor((n - #items + turn) / 2))
    take_bytes(fresh_list, n - #items)
    take_jobs(pushed, n - #items)
    take_due(n - #items)
  end
end

local characters = is_suspect and 's' or string.rep('.', #items)
if #items > 0 then
  for i = 1, #strange, 2 do
    call('HSET', jobs, strange[i], strange[i + 1])
  end
  call('UNLINK', batch)
  for i = 1, #items, 500 do
    call('RPUSH', batch, unpack(items, i, math.min(i + 499, #items)))
  end
  call('HSET', open, 'last', ARGV[2], ARGV[2], now .. ' ' .. characters)
end
for key, count in pairs(used) do
  if count > 0 then
    call('LTRIM', key, 0, -(count + 1))
  end
end
for i = 1, #promoted, 500 do
  call('ZREM', delayed, unpack(promoted, i, math.min(i + 499, #promoted)))
end
if park then
  if used[park] == length[park] then
    call('ZREM', routes, ARGV[6])
  else
    call('ZADD', routes, now + ARGV[7], ARGV[6])
  end
end
if #items > 0 then
  redis.pcall('HINCRBY', stats, 'taken', #items)
end
if not park and length[pushed] > (used[pushed] or 0) and redis.pcall('LLEN', nudge) == 0 then
  redis.pcall('LPUSH', nudge, '')
end
if not park then
  note_since(stats, now, length[fresh_list] - (used[fresh_list] or 0) + length[arrive] - (used[arrive] or 0))
end
return answer(now, characters, slots)
