-- Shared by the scripts that move jobs; put in front of each of them when it is loaded.
--
-- A job in T:jobs is `<deaths> <first seen ms> {json}\n<bytes>`. A part of a split job is `<root>/<k>`
-- (a part of a part `<root>/<k>/<j>`): it has no bytes of its own, they lie under the root, and the field
-- `<root>/` counts the parts that still exist. A reference is `\1<id>`. Where such a job has a dedupe key, the field
-- `<root>/-` names the parts that have died, as ' /1 /3 ', and has a '+' among them when one was delivered.
local call, sub, find, match, byte = redis.call, string.sub, string.find, string.match, string.byte
-- Characters in T:open:<worker>: '.', 'b' (moved unread: a producer's bytes, whatever they begin with), 's', 'x'.
local LIVE, UNREAD, SUSPECT, SETTLED = 46, 98, 115, 120

-- The first key that a check found unusable, as an error reply that names it.
local refusal
local function size_of(command, key)
  local size = redis.pcall(command, key)
  if type(size) == 'table' then
    refusal = refusal or redis.error_reply(size.err .. ' [' .. key .. ']')
    return 0
  end
  return size
end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Note since when the lists have not been empty, for people only.
local function note_since(stats, now, length)
  if length > 0 then
    redis.pcall('HSETNX', stats, '.since', now)
  else
    redis.pcall('HDEL', stats, '.since')
  end
end

-- How many jobs wait: untouched ones, and all that were touched and are neither delayed nor dead.
local function pressure_depth(fresh_list, arrive, jobs, delayed, dead)
  local touched = size_of('HLEN', jobs) - size_of('ZCARD', delayed) - size_of('ZCARD', dead)
  return math.max(0, touched) + size_of('LLEN', fresh_list) + size_of('LLEN', arrive)
end

-- Tell producers, and nobody else, whether that is too many: `high` from the high water on, `ok` below 9/10 of it.
local function note_pressure(key, depth, high_water)
  local before, now = redis.pcall('GET', key), 'ok'
  if high_water > 0 and (depth >= high_water or (before == 'high' and depth > 0.9 * high_water)) then
    now = 'high'
  end
  if now ~= before and type(before) ~= 'table' then -- a key of another type is somebody else's
    redis.pcall('SET', key, now)
  end
  return now
end

-- Some of the routes that are due: each time others, so that closed ones hide none that somebody else has room for.
local function routes_due(routes, now)
  local due = call('ZCOUNT', routes, '-inf', now)
  if due == 0 then
    return {}
  end
  local from = 16 * (now % math.ceil(due / 16))
  return call('ZRANGE', routes, from, math.min(from + 15, due - 1))
end

local function root_of(id)
  local slash = find(id, '/', 1, true)
  return slash and sub(id, 1, slash - 1)
end

local function parse(value)
  return match(value, '^(%d+) (%d+) ([^\n]*)\n(.*)$')
end

local function render(deaths, first, json, bytes)
  return deaths .. ' ' .. first .. ' ' .. json .. '\n' .. bytes
end

-- The job `id`, or false; a part whose root was delivered by somebody else is nothing any more, and goes.
local function job_value(jobs, id)
  local value, root = call('HGET', jobs, id), root_of(id)
  if value and root and call('HEXISTS', jobs, root) == 0 then
    call('HDEL', jobs, id)
    return false
  end
  return value
end

-- Count `change` parts of a root; it goes, bytes and all, with its last part.
local function count_parts(jobs, root, change)
  if call('HINCRBY', jobs, root .. '/', change) <= 0 then
    call('HDEL', jobs, root, root .. '/', root .. '/-')
  end
end

-- Remove a job from where it is; lists keep a reference, which is dropped when it is met.
local function forget(jobs, delayed, dead, id)
  if call('HDEL', jobs, id) == 0 then
    return false
  end
  call('ZREM', delayed, id)
  call('ZREM', dead, id)
  local root = root_of(id)
  if root then
    count_parts(jobs, root, -1)
  else
    call('HDEL', jobs, id .. '/', id .. '/-')
  end
  return true
end

-- Two hashes in turn: each takes what is new for `window` ms, and goes when the other has, so that a field lives one
-- window at least and two at most. The field '' is when a hash had its turn last. Returns the newer, the older.
local function buckets_of(a, b, now, window)
  local begun_a, begun_b = tonumber(call('HGET', a, '') or 0), tonumber(call('HGET', b, '') or 0)
  local newer, older = a, b
  if begun_b > begun_a then
    newer, older = b, a
  end
  if math.max(begun_a, begun_b) + window > now then
    return newer, older
  end
  call('UNLINK', older)
  call('HSET', older, '', now)
  return older, newer
end

-- What is remembered for comfort must never keep an outcome out.
local function are_hashes(a, b)
  return type(redis.pcall('HLEN', a)) == 'number' and type(redis.pcall('HLEN', b)) == 'number'
end

local function note_part(jobs, root, what)
  local noted = call('HGET', jobs, root .. '/-') or ' '
  if not find(noted, ' ' .. what .. ' ', 1, true) then
    noted = noted .. what .. ' '
    call('HSET', jobs, root .. '/-', noted)
  end
  return noted
end

-- Whether a part of a split job may still be delivered, as far as `noted` tells: of all that are left it names the dead.
local function has_living_parts(jobs, dead, root, noted)
  local left = tonumber(call('HGET', jobs, root .. '/') or 0)
  local _, named = string.gsub(noted, ' /', '')
  if named < left then
    return true
  end
  for part in string.gmatch(noted, '/%S+') do
    left = left - (call('ZSCORE', dead, root .. part) and 1 or 0)
  end
  return left > 0
end

-- Note that a job is delivered, before it goes: if it is a part, the dedupe key of the whole stays taken.
local function keep_key(jobs, id)
  local root = root_of(id)
  local value = root and call('HGET', jobs, id)
  if value and find(value, '"dedupe":', 1, true) and call('HEXISTS', jobs, root) == 1 then
    note_part(jobs, root, '+')
  end
end

-- Give back the dedupe key that a job's json names, if the job still holds it: it died, or was dropped. It stays taken
-- where somebody has had the mail, and while another part of it may be delivered.
local function free_key(jobs, dead, seen_a, seen_b, id, json)
  if not (find(json, '"dedupe":', 1, true) and are_hashes(seen_a, seen_b)) then
    return
  end
  local root, is_reached = root_of(id), find(json, '"reached":true', 1, true)
  if root then
    local noted = note_part(jobs, root, sub(id, #root + 1))
    noted = is_reached and note_part(jobs, root, '+') or noted
    is_reached = find(noted, '+', 1, true) or has_living_parts(jobs, dead, root, noted)
  end
  if is_reached then
    return
  end
  local key, holder = cjson.decode(json).dedupe, root or id
  for _, seen in ipairs({seen_a, seen_b}) do
    local held = call('HGET', seen, key)
    if held and match(held, '^%d+ (.*)$') == holder then
      call('HDEL', seen, key)
    end
  end
end

-- Write down what became of a job whose id somebody was told: a line under the id of the whole, for a day at least.
local outcomes -- the newer bucket, found once a call; false when it can't be used
local function note_outcome(outcomes_a, outcomes_b, now, id, what, json)
  if not find(json, '"told":true', 1, true) then
    return
  end
  if outcomes == nil then
    outcomes = are_hashes(outcomes_a, outcomes_b) and buckets_of(outcomes_a, outcomes_b, now, 86400000)
  end
  if not outcomes then
    return
  end
  local whole = root_of(id) or id
  local line = now .. ' ' .. what .. ' ' .. id .. ' ' .. json
  if call('HSETNX', outcomes, whole, line) == 0 then
    call('HSET', outcomes, whole, call('HGET', outcomes, whole) .. '\n' .. line)
  end
end
